#include "core/layout/tensor_rules.h"

#include "core/base/text.h"
#include "core/layout/names.h"
#include "core/layout/operations.h"

#include <algorithm>
#include <map>
#include <unordered_set>

namespace crossdock::layout {

using manifest::Manifest;
using manifest::Tensor;

namespace {

constexpr uint64_t kMaxExperts = 1'024;
constexpr size_t kMaxMade = 2'000'000;  // tensors

class Applier {
 public:
  Applier(const pb::Architecture& rule, const pb::Layout& layout, const Variables& variables,
          const Manifest& m)
      : model_type_(rule.model_type()),
        layout_(layout),
        variables_(variables),
        operations_(variables),
        m_(m),
        stored_(layout, m.tensors),
        used_(m.tensors.size()) {}

  Result<std::vector<Program>> run(bool keep_unmatched, std::vector<Tensor>& tensors) {
    for (const pb::TensorRule& rule : layout_.tensor()) {
      if (auto ok = check(rule); !ok) return std::move(ok).error().in(rule.to());
    }
    XD_TRY(stored_.check_layers(variables_));
    for (const pb::TensorRule& rule : layout_.tensor()) find_optional(rule);
    for (const pb::TensorRule& rule : layout_.tensor()) XD_TRY(apply(rule));
    drop();
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
    std::vector<Program> programs;
    for (Made& made : made_) {
      tensors.push_back(std::move(made.tensor));
      programs.push_back(std::move(made.program));
    }
    return programs;
  }

 private:
  struct Made {
    uint64_t first;  // index of its first stored tensor
    Tensor tensor;
    Program program;
  };

  // Of every rule, so that one which this file has no tensor for is found out too.
  Result<void> check(const pb::TensorRule& rule) const {
    if (rule.to().empty() || rule.part().empty())
      return invalid("expected a rule with `to` and a part");
    const bool unstacks = std::any_of(rule.op().begin(), rule.op().end(),
                                      [](const auto& op) { return op.unstack(); });
    const bool numbered =
        has_expert(rule.part(0).from()) && rule.join_case() != pb::TensorRule::kStack;
    if ((unstacks || numbered) != has_expert(rule.to()) || (unstacks && numbered))
      return invalid(
          "expected '##' in the name of what unstack makes or what has it in the name of its part, "
          "and only there");
    if (numbered && rule.part().size() > 1)
      return invalid("expected one part for each '##', found several");
    const bool may_lack =
        !rule.if_has().empty() || !rule.if_lacks().empty() || !rule.when().empty();
    if (!may_lack) XD_TRY(operations_.check_bound(rule.op()));
    for (const pb::Part& part : rule.part()) {
      if (has_layer(part.from()) != has_layer(rule.to()))
        return invalid(
            cat("expected '#' for the layer in both names or in none, found ", part.from()));
      if (!may_lack) XD_TRY(operations_.check_bound(part.op()));
    }
    return {};
  }

  void keep(uint64_t i, std::string left_out) {
    Made& made = made_.emplace_back(Made{i, m_.tensors[i], {}});
    made.tensor.left_out = std::move(left_out);
    made.program.pieces = {{i, View::of(made.tensor.shape)}};
    made.program.prepare();
    used_[i] = true;
  }

  void drop() {
    for (const pb::Dropped& rule : layout_.drop()) {
      for (const uint64_t layer : stored_.layers_of(rule.from())) {
        const auto tensor = stored_.find(rule.from(), layer);
        if (tensor && !used_[*tensor]) keep(*tensor, rule.reason());
      }
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
  Result<void> miss(const pb::TensorRule& rule, const pb::Part& part, uint64_t layer,
                    uint64_t expert) {
    if (++n_missing_ > m_.tensors.size() + kMaxExperts) return incomplete(m_.tensors.size());
    if (!missing_.empty()) return {};
    const bool always = rule.if_has().empty() && rule.if_lacks().empty() && rule.when().empty();
    const auto option = options_.find(rule.optional());
    const std::string whose = option != options_.end() ? cat("comes with ", option->second)
                              : layer == kNoLayer      ? cat("every model of ", model_type_, " has")
                              : always                 ? cat("every layer of ", model_type_, " has")
                                       : cat("such a layer of ", model_type_, " has");
    missing_ = cat("expected ", with_numbers(part.from(), layer, expert), ", which ", whose,
                   ", found none");
    return {};
  }

  bool applies(const pb::TensorRule& rule, uint64_t layer) const {
    return (rule.if_has().empty() || stored_.has(rule.if_has(), layer)) &&
           (rule.if_lacks().empty() || !stored_.has(rule.if_lacks(), layer)) &&
           all_hold(rule.when(), m_.source.metadata, layer);
  }

  std::vector<uint64_t> layers_of(const pb::TensorRule& rule) const {
    std::vector<uint64_t> out = stored_.layers_of(rule.part(0).from());
    std::erase_if(out, [&](uint64_t layer) { return !applies(rule, layer); });
    return out;
  }

  // Whether the file has what is optional.
  void find_optional(const pb::TensorRule& rule) {
    if (rule.optional().empty() || options_.contains(rule.optional())) return;
    for (const uint64_t layer : layers_of(rule)) {
      if (!stored_.has(rule.part(0).from(), layer)) continue;
      options_.emplace(rule.optional(), with_numbers(rule.part(0).from(), layer, 0));
      return;
    }
  }

  Result<void> apply(const pb::TensorRule& rule) {
    if (!rule.optional().empty() && !options_.contains(rule.optional())) return {};
    for (const uint64_t layer : layers_of(rule)) {
      if (auto done = apply(rule, layer); !done)
        return std::move(done).error().in(with_numbers(rule.to(), layer, 0));
    }
    return {};
  }

  Result<void> apply(const pb::TensorRule& rule, uint64_t layer) {
    if (!has_expert(rule.to()) || !has_expert(rule.part(0).from())) return make(rule, layer, 0);
    XD_TRY_SET(const uint64_t n, count(rule, rule.part(0), layer));
    for (uint64_t expert = 0; expert < n; ++expert) XD_TRY(make(rule, layer, expert));
    return {};
  }

  // How many '##' there are in the name of a part: what the rule says, or as many as the file has.
  Result<uint64_t> count(const pb::TensorRule& rule, const pb::Part& part, uint64_t layer) const {
    if (rule.count().empty()) {
      uint64_t n = 1;  // which the file must have
      while (n < kMaxExperts && stored_.find(part.from(), layer, n)) ++n;
      return n;
    }
    XD_TRY_SET(const uint64_t n, variables_.number(rule.count(), layer));
    if (n > 0 && n <= kMaxExperts) return n;
    return unsupported(cat("expected ", rule.count(), " to be 1 to ", kMaxExperts, ", found ", n));
  }

  // The tensor of one name, or those that unstack makes.
  Result<void> make(const pb::TensorRule& rule, uint64_t layer, uint64_t expert) {
    Program program;
    for (const pb::Part& part : rule.part()) {
      const bool many = has_expert(part.from()) && !has_expert(rule.to());
      XD_TRY_SET(const uint64_t n, many ? count(rule, part, layer) : Result<uint64_t>(1));
      for (uint64_t i = 0; i < n; ++i) {
        const auto tensor = stored_.find(part.from(), layer, many ? i : expert);
        if (!tensor) {
          XD_TRY(miss(rule, part, layer, many ? i : expert));
          continue;
        }
        used_[*tensor] = true;
        XD_TRY_SET(View view, operations_.view_of(m_.tensors[*tensor], part, layer));
        if (rule.join_case() == pb::TensorRule::kStack) XD_TRY(view.unsqueeze(0));
        program.pieces.push_back({*tensor, std::move(view)});
      }
    }
    if (!missing_.empty()) return {};
    return finish(rule, layer, expert, std::move(program));
  }

  // The shape of the joined pieces.
  Result<std::vector<uint64_t>> join(const pb::TensorRule& rule, Program& program) const {
    std::vector<uint64_t> shape = program.pieces[0].view.shape();
    if (rule.join_case() == pb::TensorRule::JOIN_NOT_SET && program.pieces.size() > 1)
      return invalid(
          cat("expected concat or stack for ", program.pieces.size(), " tensors, found neither"));
    program.join_dim = rule.concat();
    if (program.join_dim >= shape.size() && program.pieces.size() > 1)
      return invalid(
          cat("expected a dimension below ", shape.size(), " to join, found ", program.join_dim));
    for (size_t i = 1; i < program.pieces.size(); ++i) {
      const auto other = program.pieces[i].view.shape();
      for (size_t dim = 0; dim < shape.size(); ++dim) {
        if (other.size() == shape.size() && (dim == program.join_dim || other[dim] == shape[dim]))
          continue;
        return invalid(
            "expected tensors whose shapes differ along the joined dimension alone, found others");
      }
      if (m_.tensors[program.pieces[i].tensor].dtype != m_.tensors[program.pieces[0].tensor].dtype)
        return invalid("expected tensors of one type to join, found two");
      shape[program.join_dim] += other[program.join_dim];
    }
    return shape;
  }

  Result<void> finish(const pb::TensorRule& rule, uint64_t layer, uint64_t expert,
                      Program program) {
    XD_TRY_SET(const auto joined, join(rule, program));
    Tensor t = m_.tensors[program.pieces[0].tensor];
    for (size_t i = 1; i < program.pieces.size(); ++i) {
      const Tensor& other = m_.tensors[program.pieces[i].tensor];
      if (program.pieces[i].tensor == program.pieces[i - 1].tensor) continue;
      t.name += "+" + other.name;
      t.extents.insert(t.extents.end(), other.extents.begin(), other.extents.end());
      if (other.encoding != t.encoding) t.encoding += "+" + other.encoding;
    }
    // Operations on the whole only count elements, so a view of a dense tensor of its shape stands
    // for it. Of one piece it is the piece's own view.
    const bool alone = program.pieces.size() == 1;
    View view = alone ? program.pieces[0].view : View::of(joined);
    bool unstacks = false;
    for (const pb::Operation& op : rule.op()) {
      const bool is_of_values = op.has_add() || op.has_log_of_negated();
      if (unstacks && !is_of_values)
        return invalid("expected unstack as the last operation on the shape");
      switch (op.kind_case()) {
        case pb::Operation::kAdd:
          program.add += op.add();
          break;
        case pb::Operation::kLogOfNegated:
          if (program.add != 0)
            return invalid("expected log_of_negated before add, found it after");
          program.log_of_negated = op.log_of_negated();
          break;
        case pb::Operation::kUnstack:
          unstacks = op.unstack();
          break;
        case pb::Operation::kSplit:
        case pb::Operation::kMerge:
        case pb::Operation::kReshape:
          XD_TRY(operations_.change(view, op, layer));
          break;
        default:
          if (!alone)
            return invalid(
                "expected only split, merge, reshape, add or log_of_negated after a join");
          XD_TRY(operations_.change(view, op, layer));
      }
    }
    if ((program.add != 0 || program.log_of_negated) && t.dtype != manifest::DType::F32)
      return unsupported(cat("expected F32 values to compute on, found ", manifest::name(t.dtype),
                             " in ", base::printable(t.name)));
    t.shape = view.shape();
    if (alone) program.pieces[0].view = view;
    if (unstacks) return unstack(rule, layer, t, program);
    return add(rule, layer, expert, std::move(t), std::move(program));
  }

  // A tensor for each element of the first dimension.
  Result<void> unstack(const pb::TensorRule& rule, uint64_t layer, const Tensor& t,
                       const Program& program) {
    if (program.pieces.size() != 1 || t.shape.empty())
      return invalid("expected one tensor with a first dimension to unstack");
    const uint64_t n = t.shape[0];
    if (n > kMaxExperts)
      return unsupported(cat("expected at most ", kMaxExperts, " experts, found ", n));
    if (!rule.count().empty()) {
      XD_TRY_SET(const uint64_t wanted, variables_.number(rule.count(), layer));
      if (n != wanted)
        return corrupt(cat("expected ", wanted, " (", rule.count(), ") to unstack, found ", n));
    }
    for (uint64_t expert = 0; expert < n; ++expert) {
      Program one = program;
      Tensor part = t;
      part.name = cat(t.name, "[", expert, "]");
      XD_TRY(one.pieces[0].view.slice(0, expert, 1));
      XD_TRY(one.pieces[0].view.squeeze(0));
      part.shape = one.pieces[0].view.shape();
      XD_TRY(add(rule, layer, expert, std::move(part), std::move(one)));
    }
    return {};
  }

  Result<void> add(const pb::TensorRule& rule, uint64_t layer, uint64_t expert, Tensor t,
                   Program program) {
    if (made_.size() >= kMaxMade)
      return unsupported(cat("expected at most ", kMaxMade, " tensors, found more"));
    const std::string name = with_numbers(rule.to(), layer, expert);
    if (const auto [it, fresh] = targets_.emplace(name, t.name); !fresh)
      return invalid(cat("expected one rule for ", name, ", found it made of both ",
                         base::printable(it->second), " and ", base::printable(t.name)));
    // A stored tensor may be a part of several: names stay different.
    if (!names_.insert(t.name).second) t.name += " as " + name;
    t.target_name = name == t.name ? "" : name;
    program.prepare();
    if (!program.is_plain()) t.layout = rule.ShortDebugString();
    made_.push_back({program.pieces[0].tensor, std::move(t), std::move(program)});
    return {};
  }

  const std::string model_type_;
  const pb::Layout& layout_;
  const Variables& variables_;
  const Operations operations_;
  const Manifest& m_;
  const StoredNames stored_;
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
                                      const Variables& variables, bool keep_unmatched,
                                      const Manifest& m) {
  NewTensors out;
  XD_TRY_SET(out.programs, Applier(rule, layout, variables, m).run(keep_unmatched, out.tensors));
  return out;
}

}  // namespace crossdock::layout
