// SPDX-License-Identifier: Apache-2.0
#include "core/rules/module.h"

#include "core/base/text.h"
#include "core/model/config.h"
#include "core/rules/config_check.h"
#include "core/rules/module_order.h"
#include "core/rules/rules.pb.h"

#include <algorithm>
#include <map>
#include <set>

namespace crossdock::rules {

namespace pb = rules::v1;
using manifest::Manifest;
using manifest::Tensor;

namespace {

// Whether every model of the class has the parameter, in every layer.
bool is_of_all(const pb::Parameter& p) { return p.optional().empty() && p.kind().empty(); }

// "model.layers.#" of a name with layers: what is numbered, up to its last number. Empty: nothing.
std::string block_of(const std::string& name) {
  size_t end = name.size();
  while (end != std::string::npos && end > 0) {
    const size_t dot = name.rfind('.', end - 1);
    const size_t begin = dot == std::string::npos ? 0 : dot + 1;
    if (placeholder(std::string_view(name).substr(begin, end - begin))) return name.substr(0, end);
    end = dot;
  }
  return {};
}

class Description {
 public:
  explicit Description(const ModuleRule& rule) : rule_(rule) {}

  // What the class has, found in the model; an error when a parameter is missing.
  Result<void> find_all(const Manifest& m) {
    for (const Tensor& t : m.tensors) {
      if (!t.excluded.empty()) continue;
      by_name_.emplace(t.target(), &t);
      const auto found = rule_.find(t.target());
      if (found && !found->is_buffer) add_instances(*found, t.target());
    }
    for (auto& [name, to] : rule_.tied_names(m)) tied_.emplace(name, to);
    XD_TRY(check_gaps());
    for (const pb::Parameter& parameter : rule_.rule().parameter())
      XD_TRY(check_there(parameter, m));
    for (const pb::Choice& choice : rule_.rule().choice()) XD_TRY(check_choice(choice));
    return {};
  }

  Result<Manifest> make(const Manifest& m) {
    XD_TRY(find_all(m));
    XD_TRY(check_rest());
    std::map<ModuleOrder::Key, const Tensor*> parameters;
    std::vector<const Tensor*> buffers;
    const ModuleOrder order(rule_.rule());
    for (const auto& [name, tensor] : by_name_) {
      const auto found = rule_.find(name);
      if (!found || tied_.contains(name)) continue;
      if (found->is_buffer) {
        buffers.push_back(tensor);
      } else {
        parameters.emplace(order.key(*found), tensor);
      }
    }
    for (const auto& [key, tensor] : parameters) add(tensor->target(), *tensor);
    for (const Tensor* tensor : buffers) {
      add(tensor->target(), *tensor);
      out_.tensors.back().role = manifest::Role::kBuffer;
    }
    add_aliases();
    return std::move(out_);
  }

 private:
  // Whether the model has a tensor of this name.
  bool has(const std::string& name) const { return by_name_.contains(name); }

  void add(const std::string& name, const Tensor& like) {
    index_.emplace(name, out_.tensors.size());
    Tensor& t = out_.tensors.emplace_back();
    t.name = name;
    t.dtype = like.dtype;
    t.shape = like.shape;
    t.role = manifest::Role::kParameter;
    t.train =
        like.train == manifest::Training::kFrozen ? like.train : manifest::Training::kTrainable;
  }

  // The layers that a parameter of the model shows, and what they have.
  void add_instances(const ModuleRule::Found& found, const std::string& name) {
    const pb::Parameter& p = *found.parameter;
    if (!p.optional().empty()) options_.insert(p.optional());
    if (!p.kind().empty()) kinds_[p.kind()].insert(found.numbers);
    for (std::string block = block_of(p.name()); !block.empty();) {
      Numbers numbers(found.numbers.begin(),
                      found.numbers.begin() + static_cast<ptrdiff_t>(count_numbers(block)));
      instances_[block].emplace(numbers, name);
      if (p.kind().empty()) numbered_[block].emplace(std::move(numbers), name);
      block =
          block.find('.') == std::string::npos ? "" : block_of(block.substr(0, block.rfind('.')));
    }
  }

  // A layer behind a gap is one of a model that lacks some.
  Result<void> check_gaps() const {
    for (const auto& [block, numbered] : numbered_) {
      Numbers last;
      for (const auto& [numbers, name] : numbered) {
        const bool is_first =
            last.empty() || !std::equal(numbers.begin(), numbers.end() - 1, last.begin());
        if (numbers.back() != (is_first ? 0 : last.back() + 1))
          return invalid(
              cat("expected layers and experts that are numbered from 0 without gaps, found ",
                  base::printable(name), " behind one: the model is incomplete"));
        last = numbers;
      }
    }
    return {};
  }

  Result<void> check_there(const pb::Parameter& p, const Manifest& m) const {
    if (!p.optional().empty() && !options_.contains(p.optional())) return {};
    const std::string block = block_of(p.name());
    if (block.empty()) return check_there(p, Numbers());
    const auto instances = instances_.find(block);
    if (instances == instances_.end()) {
      const bool must = is_of_all(p) && count_numbers(block) == 1 && wants_layers(block, m);
      return must ? check_there(p, Numbers{0}) : Result<void>();
    }
    for (const auto& [numbers, name] : instances->second) {
      if (p.kind().empty() || is_of_kind(p.kind(), numbers)) XD_TRY(check_there(p, numbers));
    }
    return {};
  }

  // A model without a single layer lacks them, but where config.json says that it has none.
  bool wants_layers(const std::string& block, const Manifest& m) const {
    for (const pb::ModuleLayers& layers : rule_.rule().layers()) {
      if (block.starts_with(layers.prefix()) && size_in_config(Facts(m), layers.count()) == 0)
        return false;
    }
    return true;
  }

  bool is_of_kind(const std::string& kind, const Numbers& numbers) const {
    const auto found = kinds_.find(kind);
    return found != kinds_.end() && found->second.contains(numbers);
  }

  Result<void> check_there(const pb::Parameter& p, const Numbers& numbers) const {
    const std::string name = with_numbers(p.name(), numbers);
    if (tied_.contains(name) || has(name)) return {};
    const std::string flag = prefix_flag(), unknown = first_unknown();
    return invalid(cat(
        "expected the parameter ", name, " of ", rule_.class_name(),
        " in the source, found none of that name",
        unknown.empty() ? "" : cat(", but ", base::printable(unknown), ", which it has not"), ": ",
        flag.empty() ? "use --strip-prefix, --add-prefix or --rename where only names differ"
                     : cat("use ", flag)));
  }

  // The first name that the class has not; empty: it has them all.
  std::string first_unknown() const {
    for (const auto& [name, tensor] : by_name_) {
      if (!rule_.knows(name)) return name;
    }
    return {};
  }

  Result<void> check_choice(const pb::Choice& choice) const {
    std::string block;
    for (const pb::Parameter& p : rule_.rule().parameter()) {
      const auto& kinds = choice.kind();
      if (std::find(kinds.begin(), kinds.end(), p.kind()) != kinds.end())
        block = block_of(p.name());
    }
    const auto instances = instances_.find(block);
    if (instances == instances_.end()) return {};
    for (const auto& [numbers, name] : instances->second) {
      std::vector<std::string> found;
      for (const std::string& kind : choice.kind()) {
        if (is_of_kind(kind, numbers)) found.push_back(kind);
      }
      if (found.size() == 1) continue;
      return invalid(cat("expected ", with_numbers(block, numbers), " to have one of ",
                         base::listed({choice.kind().begin(), choice.kind().end()}), ", as ",
                         rule_.class_name(), " has, found ",
                         found.empty() ? "none" : base::listed(found),
                         ": the model is incomplete"));
    }
    return {};
  }

  // "--add-prefix model.", when the names are the class's but for that; empty when they are not.
  // For prefixes that are not the base class's, which give_class_names() has tried already.
  std::string prefix_flag() const {
    std::vector<std::string> expected;
    for (const pb::Parameter& p : rule_.rule().parameter()) {
      if (!is_of_all(p) || count_numbers(p.name()) > 1) continue;
      std::string name = with_numbers(p.name(), Numbers{0});
      if (tied_.contains(name)) continue;
      if (has(name)) return {};
      expected.push_back(std::move(name));
    }
    if (expected.empty()) return {};
    const auto fits = [&](const std::string& add, const std::string& strip) {
      const auto n = std::count_if(expected.begin(), expected.end(), [&](const std::string& name) {
        return name.starts_with(strip) && has(add + name.substr(strip.size()));
      });
      return 2 * static_cast<size_t>(n) >= expected.size();
    };
    const std::string& first = expected[0];
    for (size_t dot = first.find('.'); dot != std::string::npos; dot = first.find('.', dot + 1)) {
      const std::string prefix = first.substr(0, dot + 1);
      if (fits("", prefix)) return cat("--add-prefix ", prefix);
    }
    for (const auto& [name, tensor] : by_name_) {
      if (!name.ends_with("." + first)) continue;
      const std::string prefix = name.substr(0, name.size() - first.size());
      if (fits(prefix, "")) return cat("--strip-prefix ", base::printable(prefix));
    }
    return {};
  }

  // The names that the module has for one parameter.
  void add_aliases() {
    std::map<std::string, manifest::AliasGroup> groups;
    for (const auto& [name, to] : tied_) {
      const auto kept = index_.find(to);
      if (kept == index_.end()) continue;
      auto& group = groups[to].tensors;
      if (group.empty()) group.push_back(kept->second);
      group.push_back(out_.tensors.size());
      const Tensor like = out_.tensors[kept->second];
      add(name, like);
    }
    for (auto& [to, group] : groups) out_.alias_groups.push_back(std::move(group));
  }

  // What the rule does not know may be a parameter: to leave it out would shift all behind it.
  Result<void> check_rest() const {
    const std::string unknown = first_unknown();
    if (unknown.empty()) return {};
    return invalid(
        cat("expected only parameters that ", rule_.class_name(), " has, found ",
            base::printable(unknown),
            ": use --strip-prefix, --add-prefix or --rename where only names differ, or describe "
            "the job's own module with --target"));
  }

  const ModuleRule& rule_;
  std::map<std::string, const Tensor*> by_name_;
  std::map<std::string, std::string> tied_;
  // Of what is numbered, as "model.layers.#": the numbers that there are, each with a name of it.
  using Instances = std::map<std::string, std::map<Numbers, std::string>>;
  Instances instances_;
  Instances numbered_;  // by what is in every layer alone
  std::set<std::string> options_;
  std::map<std::string, std::set<Numbers>> kinds_;  // the layers of each kind
  std::map<std::string, uint64_t> index_;           // of what is described
  Manifest out_;
};

}  // namespace

Result<void> check_parameters(const ModuleRule& rule, const Manifest& m) {
  return Description(rule).find_all(m);
}

Result<Manifest> describe_module(const ModuleRule& rule, const Manifest& m) {
  if (rule.rule().unordered())
    return unsupported(
        cat("expected a class whose layers have their parameters in one order, found ",
            rule.class_name()));
  return Description(rule).make(m);
}

Error no_module_rule(const Manifest& m) {
  if (!m.source.config.get<manifest::ValueMap>())
    return invalid(
        "expected a config.json with model_type and architectures beside the weights, found no "
        "config.json");
  const model::ModelClass asked = model::model_class(m);
  if (asked.model_type.empty()) {
    return invalid(
        "expected model_type in config.json, found a config.json without it: add it, as in "
        "\"model_type\": \"llama\"");
  }
  if (asked.architecture.empty()) {
    return invalid(
        "expected architectures in config.json, found a config.json without it: add it, as in "
        "\"architectures\": [\"LlamaForCausalLM\"]");
  }
  return unsupported(cat("expected an architecture whose module there is a rule for, found ",
                         base::printable(asked.architecture), " (",
                         base::printable(asked.model_type), ")"));
}

}  // namespace crossdock::rules
