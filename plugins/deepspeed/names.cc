// SPDX-License-Identifier: Apache-2.0
#include "plugins/deepspeed/names.h"

#include "plugins/common/quote.h"

#include <map>
#include <set>

namespace crossdock::deepspeed {

namespace {

using common::in_quotes;

// What TransformerEngine's modules keep beside their parameters.
bool is_extra_state(std::string_view name) { return name.ends_with("_extra_state"); }

class Resolver {
 public:
  Resolver(const ModelStates& model, uint64_t stage) : model_(model), stage_(stage) {}

  bool knows_order() const { return knows_order_; }

  Result<std::vector<Name>> run() {
    XD_TRY(add_parameters());
    for (const NamedTensor& t : model_.module) {
      if (!in_module_.emplace(t.name, &t.value).second) return twice(t.name, "module");
    }
    for (const auto& [other, kept] : model_.tied) tied_.emplace(other, kept);
    buffers_.insert(model_.buffer_names.begin(), model_.buffer_names.end());
    std::vector<Name> out;
    for (const NamedTensor& t : model_.module) {
      XD_TRY_SET(out.emplace_back(), resolve(t.name));
    }
    // Names that the module's state does not have: its hooks may rename what it saves, and there
    // are checkpoints without one.
    for (const std::string_view name : order_) {
      if (!in_module_.contains(name)) {
        XD_TRY_SET(out.emplace_back(), resolve(name));
        knows_order_ = false;
      }
    }
    for (const auto& [other, kept] : tied_) {
      if (in_module_.contains(other) || parameters_.contains(other)) continue;
      XD_TRY_SET(out.emplace_back(), resolve(other));
    }
    return out;
  }

 private:
  static Error twice(std::string_view name, std::string_view where) {
    return corrupt(cat("expected each name once, found ", in_quotes(name), " twice in ", where));
  }

  Result<void> add_parameters() {
    for (size_t g = 0; g < model_.groups.size(); ++g) {
      for (size_t i = 0; i < model_.groups[g].size(); ++i) {
        const NamedShape& p = model_.groups[g][i];
        const Name name{p.name, Origin::kTrained, true, &p, g, i, nullptr, {}};
        if (!parameters_.emplace(p.name, name).second) return twice(p.name, "param_shapes");
        order_.push_back(p.name);
      }
    }
    if (!model_.frozen) return {};
    for (const NamedShape& p : *model_.frozen) {
      const Name name{p.name, Origin::kFrozen, true, &p, 0, 0, nullptr, {}};
      if (!parameters_.emplace(p.name, name).second)
        return twice(p.name, "param_shapes and frozen_param_shapes");
      order_.push_back(p.name);
    }
    return {};
  }

  Result<Name> resolve(std::string_view name) const {
    const auto module = in_module_.find(name);
    const Stored* in_module = module == in_module_.end() ? nullptr : module->second;
    const bool is_buffer = buffers_.contains(name);
    if (const auto it = parameters_.find(name); it != parameters_.end()) {
      if (is_buffer) return twice(name, "param_shapes and buffer_names");
      Name out = it->second;
      out.in_module = in_module;
      return out;
    }
    Name out{name, Origin::kLost, true, nullptr, 0, 0, in_module, {}};
    if (is_tied(name, in_module, is_buffer)) {
      out.origin = Origin::kTied;
      out.kept = tied_.at(name);
      return out;
    }
    out.is_parameter = !is_buffer && !is_extra_state(name);
    const bool is_placeholder =
        out.is_parameter && stage_ == 3 && in_module && in_module->n_elems() == 0;
    if (in_module && !is_placeholder) out.origin = Origin::kStored;
    return out;
  }

  // DeepSpeed takes equal addresses for one parameter, which those without elements have too.
  bool is_tied(std::string_view name, const Stored* in_module, bool is_buffer) const {
    const auto it = tied_.find(name);
    if (it == tied_.end() || is_buffer) return false;
    const auto kept = parameters_.find(it->second);
    const auto kept_in_module = in_module_.find(it->second);
    if (kept == parameters_.end() && kept_in_module == in_module_.end()) return false;
    if (!in_module || stage_ == 3) return true;
    return in_module->shape ==
           (kept != parameters_.end() ? kept->second.shape->shape : kept_in_module->second->shape);
  }

  const ModelStates& model_;
  const uint64_t stage_;
  std::map<std::string_view, Name> parameters_;
  std::vector<std::string_view> order_;  // of them in param_shapes
  bool knows_order_ = true;
  std::map<std::string_view, const Stored*> in_module_;
  std::map<std::string_view, std::string_view> tied_;
  std::set<std::string_view> buffers_;
};

}  // namespace

Result<Names> Names::make(const ModelStates& model, uint64_t stage) {
  Names out;
  Resolver resolver(model, stage);
  XD_TRY_SET(out.names_, resolver.run());
  out.knows_order_ = resolver.knows_order();
  return out;
}

}  // namespace crossdock::deepspeed
