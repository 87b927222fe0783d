#include "core/rules/module.h"

#include "core/base/text.h"
#include "core/model/config.h"
#include "core/rules/rules.pb.h"

#include <algorithm>
#include <map>

namespace crossdock::rules {

namespace pb = rules::v1;
using manifest::Manifest;
using manifest::Tensor;

namespace {

class Description {
 public:
  // `wants_layers`: a model without a single layer lacks them.
  explicit Description(const ModuleRule& rule, bool wants_layers = false)
      : rule_(rule), wants_layers_(wants_layers) {}

  Result<Manifest> make(const Manifest& m) {
    XD_TRY(find_all(m));
    XD_TRY(check_rest());
    return std::move(out_);
  }

  // What the class has, found in the model; an error when a parameter is missing.
  Result<void> find_all(const Manifest& m) {
    for (const Tensor& t : m.tensors) {
      if (t.excluded.empty()) by_name_.emplace(t.target(), &t);
    }
    for (const pb::Tied* tied : rule_.tied_names(m)) tied_.emplace(tied->name(), tied->to());
    XD_TRY(add_parameters());
    XD_TRY(add_tied());
    return check_gaps();
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
  Result<void> add(const pb::Parameter& parameter, const std::string& name) {
    if (tied_.contains(name)) return {};
    if (const auto it = by_name_.find(name); it != by_name_.end()) {
      add(name, *it->second);
    } else if (!parameter.optional()) {
      const std::string flag = prefix_flag();
      return invalid(
          cat("expected the parameter ", name, " of ", rule_.class_name(),
              " in the source, found none of that name: ",
              flag.empty() ? "use --strip-prefix, --add-prefix or --rename where only names differ"
                           : cat("use ", flag)));
    }
    return {};
  }

  // "--add-prefix model.", when the names are the class's but for that; empty when they are not.
  // For prefixes that are not the base class's, which give_class_names() has tried already.
  std::string prefix_flag() const {
    std::vector<std::string> expected;
    for (const pb::Parameter& p : rule_.rule().parameter()) {
      if (p.optional() || p.name().find("##") != std::string::npos) continue;
      std::string name = p.name();
      if (const size_t at = name.find('#'); at != std::string::npos) name.replace(at, 1, "0");
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

  // Neighbours with the same text before '#' are one block, which comes once for each layer that
  // there is.
  Result<void> add_parameters() {
    const auto& all = rule_.rule().parameter();
    const auto prefix_of = [&](int i) { return all[i].name().substr(0, all[i].name().find('#')); };
    for (int begin = 0; begin < all.size();) {
      if (all[begin].name().find('#') == std::string::npos) {
        XD_TRY(add(all[begin], all[begin].name()));
        ++begin;
        continue;
      }
      int end = begin;
      while (end < all.size() && all[end].name().find('#') != std::string::npos &&
             prefix_of(end) == prefix_of(begin))
        ++end;
      const auto name_of = [&](int i, uint64_t layer) {
        std::string name = all[i].name();
        return name.replace(name.find('#'), 1, std::to_string(layer));
      };
      for (uint64_t layer = 0;; ++layer) {
        bool any = false;
        for (int i = begin; i < end; ++i) any = any || has(name_of(i, layer));
        if (!any && (layer > 0 || !wants_layers_)) break;
        for (int i = begin; i < end; ++i) XD_TRY(add_counted(all[i], name_of(i, layer)));
      }
      begin = end;
    }
    return {};
  }

  // Of a name with '##', those that there are.
  Result<void> add_counted(const pb::Parameter& parameter, const std::string& name) {
    const size_t at = name.find("##");
    if (at == std::string::npos) return add(parameter, name);
    for (uint64_t i = 0;; ++i) {
      std::string one = name;
      one.replace(at, 2, std::to_string(i));
      if (!has(one) && (i > 0 || parameter.optional())) return {};
      XD_TRY(add(parameter, one));
    }
  }

  Result<void> add_tied() {
    std::map<std::string, manifest::AliasGroup> groups;
    for (const auto& [name, to] : tied_) {
      const auto kept = index_.find(to);
      if (kept == index_.end())
        return invalid(
            cat("expected ", to, ", to which ", name, " is tied, in the source, found none"));
      const Tensor like = out_.tensors[kept->second];
      add(name, like);
      auto& group = groups[to].tensors;
      if (group.empty()) group.push_back(kept->second);
      group.push_back(index_.at(name));
    }
    for (auto& [to, group] : groups) out_.alias_groups.push_back(std::move(group));
    return {};
  }

  // Layers and experts are counted from 0 until one is missing; what lies behind it would be lost.
  Result<void> check_gaps() const {
    for (const auto& [name, tensor] : by_name_) {
      if (index_.contains(name) || !rule_.find_parameter(name)) continue;
      return invalid(
          cat("expected layers and experts that are numbered from 0 without gaps, found ",
              base::printable(name), " behind one: the model is incomplete"));
    }
    return {};
  }

  // What the rule does not know may be a parameter: to leave it out would shift all behind it.
  Result<void> check_rest() const {
    for (const auto& [name, tensor] : by_name_) {
      if (index_.contains(name)) continue;
      return invalid(
          cat("expected only parameters that ", rule_.class_name(), " has, found ",
              base::printable(name),
              ": use --strip-prefix, --add-prefix or --rename where only names differ, or describe "
              "the job's own module with --target"));
    }
    return {};
  }

  const ModuleRule& rule_;
  const bool wants_layers_;
  std::map<std::string, const Tensor*> by_name_;
  std::map<std::string, std::string> tied_;
  std::map<std::string, uint64_t> index_;  // of what is described
  Manifest out_;
};

}  // namespace

Result<void> check_parameters(const ModuleRule& rule, const Manifest& m) {
  return Description(rule, /*wants_layers=*/true).find_all(m);
}

Result<Manifest> describe_module(const ModuleRule& rule, const Manifest& m) {
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
