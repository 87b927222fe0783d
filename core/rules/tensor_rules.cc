// SPDX-License-Identifier: Apache-2.0
#include "core/rules/tensor_rules.h"

#include "core/base/text.h"
#include "core/rules/parts.h"
#include "core/rules/stored_names.h"

#include <algorithm>
#include <map>
#include <unordered_set>

namespace crossdock::rules {

using manifest::Manifest;
using manifest::Tensor;
using transform::Expression;

namespace {

constexpr size_t kMaxMade = 2'000'000;  // tensors

// Whether the part comes once for each expert.
bool is_numbered(const pb::Part& part) { return has_free_number(part, Running().depth); }

Running experts_of(const pb::TensorRule& rule) { return {Running().depth, rule.count()}; }

Place place_of(uint64_t layer, uint64_t expert = 0) { return {{layer, expert}}; }

bool has_condition(const pb::TensorRule& rule) {
  return !rule.if_has().empty() || !rule.if_lacks().empty() || !rule.when().empty();
}

class Applier {
 public:
  Applier(const pb::Architecture& rule, const pb::Layout& layout, const Variables& variables,
          const Facts& facts, const Manifest& m)
      : model_type_(rule.model_type()),
        layout_(layout),
        variables_(variables),
        facts_(facts),
        operations_(variables),
        m_(m),
        stored_(layout, m.tensors),
        parts_(
            m, [this](const std::string& name) { return stored_.find(name); },
            [this](uint64_t i) { return Operand::stored(i, m_.tensors[i]); }, operations_,
            variables),
        used_(m.tensors.size()) {}

  Result<NewTensors> run(bool keep_unmatched) {
    for (const pb::TensorRule& rule : layout_.tensor()) {
      if (auto ok = check(rule); !ok) return std::move(ok).error().in(rule.to());
    }
    XD_TRY(stored_.check_layers(variables_));
    for (const pb::TensorRule& rule : layout_.tensor()) find_optional(rule);
    for (const pb::TensorRule& rule : layout_.tensor()) XD_TRY(apply(rule));
    exclude();
    if (!keep_unmatched) exclude_optimizer_state();
    const auto unused =
        static_cast<uint64_t>(std::find(used_.begin(), used_.end(), false) - used_.begin());
    if (!missing_.empty()) return incomplete(unused);
    for (uint64_t i = unused; i < m_.tensors.size(); ++i) {
      if (used_[i]) continue;
      if (!keep_unmatched) {
        return unsupported(cat("expected a rule for every tensor, found none for \"",
                               base::printable(m_.tensors[i].name),
                               "\": add one with --rules, or keep such tensors under their own "
                               "names with --keep-unmatched"));
      }
      keep(i, {});
    }
    // In the source's order, each where its first stored tensor is.
    std::stable_sort(made_.begin(), made_.end(),
                     [](const Made& a, const Made& b) { return a.first < b.first; });
    NewTensors out;
    for (Made& made : made_) {
      out.tensors.push_back(std::move(made.tensor));
      out.expressions.push_back(std::move(made.expression));
    }
    return out;
  }

 private:
  struct Made {
    uint64_t first;  // index of its first stored tensor
    Tensor tensor;
    Expression expression;
  };

  // Checks all rules, those included that this file has no tensors for.
  Result<void> check(const pb::TensorRule& rule) const {
    if (rule.to().empty() || rule.part().empty())
      return invalid("expected a rule with `to` and a part");
    const bool unstacks = std::any_of(rule.op().begin(), rule.op().end(),
                                      [](const auto& op) { return op.unstack(); });
    const bool numbered =
        !rule.stack() && std::any_of(rule.part().begin(), rule.part().end(), is_numbered);
    if ((unstacks || numbered) != has_expert(rule.to()) || (unstacks && numbered))
      return invalid(
          "expected '##' in the name of what unstack makes or what has it in the names of its "
          "parts, and only there");
    const bool may_lack = has_condition(rule);
    if (!may_lack) XD_TRY(operations_.check_bound(rule.op()));
    return for_each_leaf(rule.part(), [&](const pb::Part& part) -> Result<void> {
      if (part.from().empty()) return invalid("expected a part with `from` or with parts");
      if (has_layer(part.from()) != has_layer(rule.to()))
        return invalid(
            cat("expected '#' for the layer in both names or in none, found ", part.from()));
      return may_lack ? Result<void>() : operations_.check_bound(part.op());
    });
  }

  // A stored tensor as it is.
  void keep(uint64_t i, std::string excluded) {
    used_[i] = true;
    Made& made =
        made_.emplace_back(Made{i, m_.tensors[i], transform::stored_tensor(i, m_.tensors[i])});
    made.tensor.excluded = std::move(excluded);
  }

  void exclude() {
    for (const pb::ExcludedTensor& rule : layout_.excluded()) {
      for (const uint64_t layer : stored_.layers_of(rule.from())) {
        const auto tensor = stored_.find(rule.from(), layer);
        if (tensor && !used_[*tensor]) keep(*tensor, rule.reason());
      }
    }
  }

  // It would have to be laid out as its parameter is.
  void exclude_optimizer_state() {
    for (uint64_t i = 0; i < m_.tensors.size(); ++i) {
      if (!used_[i] && m_.tensors[i].role == manifest::Role::kOptimizerState)
        keep(i, "optimizer state, laid out as the source's tensors are");
    }
  }

  // What the rules ask for and the file has not: of a file cut short, or of one that the rules do
  // not know.
  Error incomplete(uint64_t unused) const {
    if (unused == m_.tensors.size())
      return corrupt(cat(missing_, ": the file is incomplete, download or convert it again"));
    return unsupported(
        cat(missing_, ", and no rule for \"", base::printable(m_.tensors[unused].name),
            "\": the file is incomplete, or of a kind that needs rules of its own (--rules)"));
  }

  // Only the first is told. The others show which tensors no rule takes, so they end when nothing
  // can come of it.
  Result<void> miss(const pb::TensorRule& rule, const Joined& found, uint64_t layer) {
    n_missing_ += found.n_missing;
    if (n_missing_ > m_.tensors.size() + kMaxExperts) return incomplete(m_.tensors.size());
    if (!missing_.empty()) return {};
    const auto option = options_.find(rule.optional());
    const std::string whose = option != options_.end() ? cat("comes with ", option->second)
                              : layer == kNoLayer      ? cat("every model of ", model_type_, " has")
                              : !has_condition(rule)   ? cat("every layer of ", model_type_, " has")
                                                     : cat("such a layer of ", model_type_, " has");
    missing_ = cat("expected ", found.missing, ", which ", whose, ", found none");
    return {};
  }

  bool applies(const pb::TensorRule& rule, uint64_t layer) const {
    return (rule.if_has().empty() || stored_.has(rule.if_has(), layer)) &&
           (rule.if_lacks().empty() || !stored_.has(rule.if_lacks(), layer)) &&
           all_hold(rule.when(), facts_, layer);
  }

  std::vector<uint64_t> layers_of(const pb::TensorRule& rule) const {
    std::vector<uint64_t> out = stored_.layers_of(first_name(rule.part(0)));
    std::erase_if(out, [&](uint64_t layer) { return !applies(rule, layer); });
    return out;
  }

  // Whether the file has what is optional.
  void find_optional(const pb::TensorRule& rule) {
    if (rule.optional().empty() || options_.contains(rule.optional())) return;
    for (const uint64_t layer : layers_of(rule)) {
      const std::string& name = first_name(rule.part(0));
      if (!stored_.has(name, layer)) continue;
      options_.emplace(rule.optional(), with_numbers(name, place_of(layer).numbers));
      return;
    }
  }

  Result<void> apply(const pb::TensorRule& rule) {
    if (!rule.optional().empty() && !options_.contains(rule.optional())) return {};
    for (const uint64_t layer : layers_of(rule)) {
      if (auto done = apply(rule, layer); !done)
        return std::move(done).error().in(with_numbers(rule.to(), place_of(layer).numbers));
    }
    return {};
  }

  Result<void> apply(const pb::TensorRule& rule, uint64_t layer) {
    const auto numbered = std::find_if(rule.part().begin(), rule.part().end(), is_numbered);
    if (rule.stack() || numbered == rule.part().end()) return make(rule, place_of(layer));
    XD_TRY_SET(const uint64_t n,
               parts_.count(experts_of(rule), first_name(*numbered), place_of(layer)));
    for (uint64_t expert = 0; expert < n; ++expert) XD_TRY(make(rule, place_of(layer, expert)));
    return {};
  }

  // The tensor of one name, or those that unstack makes.
  Result<void> make(const pb::TensorRule& rule, const Place& place) {
    XD_TRY_SET(Joined found, parts_.join(rule, experts_of(rule), place));
    for (const uint64_t i : found.stored) used_[i] = true;
    if (!found.operand) return miss(rule, found, place.layer());
    Operand& operand = *found.operand;
    bool unstacks = false;
    for (const pb::Operation& op : rule.op()) {
      if (unstacks && !op.has_add() && !op.has_log_of_negated())
        return invalid("expected unstack as the last operation on the shape");
      if (op.has_unstack()) {
        unstacks = op.unstack();
      } else {
        XD_TRY(operations_.apply(operand, op, place.layer()));
      }
    }
    return unstacks ? unstack(rule, place.layer(), operand) : add(rule, place, std::move(operand));
  }

  // A tensor for each element of the first dimension.
  Result<void> unstack(const pb::TensorRule& rule, uint64_t layer, const Operand& operand) {
    if (operand.view.rank() == 0)
      return invalid("expected a first dimension to unstack, found none");
    const uint64_t n = operand.view.size(0);
    if (n > kMaxExperts)
      return unsupported(cat("expected at most ", kMaxExperts, " experts, found ", n));
    if (!rule.count().empty()) {
      XD_TRY_SET(const uint64_t wanted, variables_.number(rule.count(), layer));
      if (n != wanted)
        return corrupt(cat("expected ", wanted, " (", rule.count(), ") to unstack, found ", n));
    }
    for (uint64_t expert = 0; expert < n; ++expert) {
      Operand one = operand;
      XD_TRY(one.view.slice(0, expert, 1));
      XD_TRY(one.view.squeeze(0));
      one.steps.push_back({"select", cat("0, ", expert)});
      XD_TRY(add(rule, place_of(layer, expert), std::move(one), cat("[", expert, "]")));
    }
    return {};
  }

  Result<void> add(const pb::TensorRule& rule, const Place& place, Operand operand,
                   const std::string& index = {}) {
    if (made_.size() >= kMaxMade)
      return unsupported(cat("expected at most ", kMaxMade, " tensors, found more"));
    const std::vector<uint64_t> stored = operand.base.tensors();
    Tensor t = joined_source(m_, stored);
    auto expression = std::move(operand).finish();
    if (!expression)
      return Error{expression.error().code,
                   cat(expression.error().message, " in ", base::printable(t.name))};
    t.name += index;
    t.dtype = expression->root().dtype;
    t.shape = expression->root().shape;
    const std::string name = with_numbers(rule.to(), place.numbers);
    if (const auto [it, fresh] = targets_.emplace(name, t.name); !fresh)
      return invalid(cat("expected one rule for ", name, ", found it made of both ",
                         base::printable(it->second), " and ", base::printable(t.name)));
    // A stored tensor may be a part of several: names stay different.
    if (!names_.insert(t.name).second) t.name += " as " + name;
    t.set_target(name);
    made_.push_back({stored[0], std::move(t), *std::move(expression)});
    return {};
  }

  const std::string model_type_;
  const pb::Layout& layout_;
  const Variables& variables_;
  const Facts& facts_;
  const Operations operations_;
  const Manifest& m_;
  const StoredNames stored_;
  const Parts parts_;
  std::map<std::string, std::string> options_;  // that the file has, each with a tensor of it
  std::string missing_;                         // the first that the file lacks
  uint64_t n_missing_ = 0;
  std::unordered_map<std::string, std::string> targets_;
  std::unordered_set<std::string> names_;
  std::vector<bool> used_;
  std::vector<Made> made_;
};

}  // namespace

Result<NewTensors> apply_tensor_rules(const pb::Architecture& rule, const pb::Layout& layout,
                                      const Variables& variables, const Facts& facts,
                                      bool keep_unmatched, const Manifest& m) {
  return Applier(rule, layout, variables, facts, m).run(keep_unmatched);
}

}  // namespace crossdock::rules
