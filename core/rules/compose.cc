// SPDX-License-Identifier: Apache-2.0
#include "core/rules/compose.h"

#include "core/base/text.h"
#include "core/rules/config_check.h"
#include "core/rules/inverse.h"
#include "core/rules/renumber.h"

#include <algorithm>
#include <map>
#include <unordered_map>
#include <unordered_set>

namespace crossdock::rules {

using manifest::Manifest;
using manifest::Tensor;
using transform::Expression;

namespace {

// What the file has of one parameter.
struct Instance {
  ModuleRule::Found of;
  std::optional<uint64_t> own;                // the tensor of its own name
  std::map<const pb::Part*, uint64_t> parts;  // alternatives, each with a tensor of it
};

class Composer {
 public:
  Composer(const ModuleRule& rule, Names names, const std::vector<Expression>& made,
           const Manifest& m)
      : rule_(rule),
        names_(names),
        made_(made),
        m_(m),
        facts_(m),
        variables_(facts_, no_layout_),
        operations_(variables_),
        parts_(
            m, [this](const std::string& name) { return find(name); },
            [this](uint64_t i) { return Operand::of(expression(i)); }, operations_, variables_),
        used_(m.tensors.size()) {}

  Result<void> run() {
    XD_TRY(sort_out());
    for (const Instance* instance : in_order()) {
      if (auto done = compose(*instance); !done)
        return std::move(done).error().in(own_name(*instance));
    }
    if (names_ == Names::kFile) XD_TRY(join_pieces());
    return names_ == Names::kModule ? check_used() : Result<void>();
  }

  bool any() const { return !new_.empty(); }

  // What is new stands where the first tensor stood that it is made of.
  Composed take(std::vector<Tensor>& tensors, std::vector<std::optional<uint64_t>>& places) {
    Composed out;
    out.n_made = new_.size();
    out.n_used = static_cast<size_t>(std::count(used_.begin(), used_.end(), true));
    std::stable_sort(new_.begin(), new_.end(),
                     [](const New& a, const New& b) { return a.first < b.first; });
    places.assign(m_.tensors.size(), std::nullopt);
    auto next = new_.begin();
    for (uint64_t i = 0; i < m_.tensors.size(); ++i) {
      for (; next != new_.end() && next->first == i; ++next) {
        if (next->expression == expression(i)) places[i] = tensors.size();  // but for its name
        tensors.push_back(std::move(next->tensor));
        out.expressions.push_back(std::move(next->expression));
      }
      if (used_[i]) continue;
      places[i] = tensors.size();
      tensors.push_back(m_.tensors[i]);
      out.expressions.push_back(expression(i));
    }
    return out;
  }

 private:
  struct New {
    uint64_t first;  // of the tensors that it is made of
    Tensor tensor;
    Expression expression;
  };
  std::optional<uint64_t> find(const std::string& name) const {
    const auto it = by_name_.find(name);
    return it == by_name_.end() ? std::nullopt : std::optional(it->second);
  }

  Expression expression(uint64_t i) const {
    return made_.empty() ? transform::stored_tensor(i, m_.tensors[i]) : made_[i];
  }

  static std::string own_name(const Instance& instance) {
    return with_numbers(instance.of.parameter->name(), instance.of.numbers);
  }

  // Of the parameter's own numbers, without that of a stack's part.
  using Key = std::pair<uint32_t, Numbers>;  // the first is the parameter's place in the rule
  static Key key_of(const ModuleRule::Found& of) {
    Numbers numbers = of.numbers;
    numbers.resize(std::min(numbers.size(), count_numbers(of.parameter->name())));
    return {of.place, std::move(numbers)};
  }

  Instance& instance(const ModuleRule::Found& of) {
    const Key key = key_of(of);
    Instance& out = instances_[key];
    out.of = of;
    out.of.numbers = key.second;
    return out;
  }

  // Which parameters the file's tensors are, or are parts of.
  Result<void> sort_out() {
    for (uint64_t i = 0; i < m_.tensors.size(); ++i) {
      const Tensor& t = m_.tensors[i];
      if (!t.excluded.empty()) continue;
      XD_TRY_SET(const auto stored, rule_.find_stored(t.target()));
      if (!stored) continue;
      if (const auto [it, is_new] = by_name_.emplace(stored->name, i); !is_new)
        return twice(stored->name, it->second, i);
      for (const auto& use : stored->uses) instance(use.of).parts.emplace(use.from, i);
      if (const auto own = rule_.find(stored->name)) {
        instance(*own).own = i;
      } else if (!stored->uses.empty()) {
        part_of_.emplace(i, key_of(stored->uses[0].of));
      }
    }
    return {};
  }

  // Whether files have the parameter otherwise. Where only the order of its elements may differ,
  // both are read, and it stays.
  static bool has_other_names(const Instance& instance) {
    const pb::Parameter& p = *instance.of.parameter;
    return instance.own && !p.from().empty() && p.from(0).from() != p.name();
  }

  // In the order of the file, so that the first fault is that of the first tensor.
  std::vector<const Instance*> in_order() const {
    std::vector<std::pair<uint64_t, const Instance*>> order;
    for (const auto& [key, instance] : instances_) {
      if (names_ == Names::kModule ? instance.parts.empty() : !has_other_names(instance)) continue;
      uint64_t first = instance.own.value_or(UINT64_MAX);
      for (const auto& [from, tensor] : instance.parts) first = std::min(first, tensor);
      order.emplace_back(first, &instance);
    }
    std::stable_sort(order.begin(), order.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    std::vector<const Instance*> out;
    for (const auto& [first, instance] : order) out.push_back(instance);
    return out;
  }

  Error twice(const std::string& name, uint64_t a, uint64_t b) const {
    return invalid(cat("expected one tensor for ", base::printable(name), " of ",
                       rule_.class_name(), ", found ", base::printable(m_.tensors[a].name), " and ",
                       base::printable(m_.tensors[b].name),
                       ": leave one out of the source, or name them with --rename"));
  }

  Result<void> compose(const Instance& instance) {
    XD_TRY_SET(auto found, choose(instance));
    if (names_ == Names::kFile) return found ? Result<void>() : split(instance);
    if (!found) return {};
    for (const uint64_t i : found->stored) used_[i] = true;
    return add(own_name(instance), instance.of.is_buffer, found->stored,
               *std::move(found->operand));
  }

  // The parameter made of what the file has of it; nothing: it is there as the module has it.
  Result<std::optional<Joined>> choose(const Instance& instance) const {
    std::optional<Joined> out;
    Joined first;  // that lacks something
    for (const pb::Part& from : instance.of.parameter->from()) {
      const auto part = instance.parts.find(&from);
      if (part == instance.parts.end()) continue;
      if (instance.own && part->second != instance.own)
        return twice(own_name(instance), *instance.own, part->second);
      XD_TRY_SET(Joined found, join(instance, from));
      if (found.n_missing > 0) {
        if (first.missing.empty()) first = std::move(found);
      } else if (instance.own) {
        XD_TRY_SET(const bool is_own, is_own_layout(instance, *found.operand));
        return is_own ? std::optional<Joined>() : std::optional(std::move(found));
      } else if (out) {
        return twice(own_name(instance), out->stored[0], found.stored[0]);
      } else {
        out = std::move(found);
      }
    }
    if (out || first.missing.empty()) return out;
    return corrupt(cat("expected ", base::printable(first.missing), ", which comes with ",
                       base::printable(m_.tensors[instance.parts.begin()->second].name),
                       ", found none: the model is incomplete"));
  }

  Result<Joined> join(const Instance& instance, const pb::Part& from) const {
    const Running experts{count_numbers(instance.of.parameter->name()), {}};
    return parts_.join(from, experts, {instance.of.numbers});
  }

  // Of two layouts under one name the shape decides; transformers too leaves a tensor as it is
  // whose shape is right already.
  Result<bool> is_own_layout(const Instance& instance, const Operand& other) const {
    const Tensor& t = m_.tensors[*instance.own];
    const bool own_fits = fits(t.shape, *instance.of.parameter);
    if (own_fits != fits(other.view.shape(), *instance.of.parameter)) return own_fits;
    if (own_fits && t.shape == other.view.shape()) return true;
    return invalid(cat("expected sizes in config.json that tell which way tensor ",
                       base::printable(t.name), " of ", base::list_text(t.shape),
                       " lies, found none"));
  }

  // Whether no size that config.json tells says otherwise.
  bool fits(const std::vector<uint64_t>& shape, const pb::Parameter& parameter) const {
    const auto& dims = parameter.dim();
    if (static_cast<size_t>(dims.size()) != shape.size()) return false;
    for (int i = 0; i < dims.size(); ++i) {
      const uint64_t found = shape[static_cast<size_t>(i)];
      if (size_in_config(facts_, dims[i]).value_or(found) != found) return false;
    }
    return true;
  }

  Result<void> add(const std::string& name, bool is_buffer, std::vector<uint64_t> of,
                   Operand operand) {
    std::sort(of.begin(), of.end());
    of.erase(std::unique(of.begin(), of.end()), of.end());
    Tensor t = joined_source(m_, of);
    XD_TRY_SET(Expression expression, std::move(operand).finish());
    t.dtype = expression.root().dtype;
    t.shape = expression.root().shape;
    t.role = is_buffer ? manifest::Role::kBuffer : manifest::Role::kParameter;
    // A stored tensor may be a part of several: names stay different.
    if (!new_names_.insert(t.name).second) t.name += " as " + name;
    t.set_target(name);
    new_.push_back({of[0], std::move(t), std::move(expression)});
    return {};
  }

  // The tensors of files that hold a parameter of the module.
  Result<void> split(const Instance& instance) {
    const uint64_t i = *instance.own;
    const pb::Part& from = instance.of.parameter->from(0);
    XD_TRY_SET(auto pieces, invert(from, Operand::of(expression(i)), instance.of.numbers,
                                   operations_, variables_));
    used_[i] = true;
    for (FilePiece& piece : pieces) pieces_.add(i, std::move(piece));
    return {};
  }

  Result<void> join_pieces() {
    XD_TRY_SET(auto tensors, std::move(pieces_).join());
    for (auto& t : tensors) {
      const bool is_buffer = m_.tensors[t.of[0]].role == manifest::Role::kBuffer;
      XD_TRY(add(t.name, is_buffer, t.of, Operand::of(std::move(t.expression))));
    }
    return {};
  }

  // An expert behind a gap, or a part of an alternative that was not taken.
  Result<void> check_used() const {
    for (const auto& [i, key] : part_of_) {
      if (used_[i]) continue;
      return corrupt(cat("expected all parts of ", base::printable(own_name(instances_.at(key))),
                         ", numbered from 0 without gaps, found ",
                         base::printable(m_.tensors[i].name),
                         " behind one: the model is incomplete"));
    }
    return {};
  }

  const ModuleRule& rule_;
  const Names names_;
  const std::vector<Expression>& made_;
  const Manifest& m_;
  const Facts facts_;
  const pb::Layout no_layout_;
  const Variables variables_;
  const Operations operations_;
  const Parts parts_;
  std::unordered_map<std::string, uint64_t> by_name_;  // as the rule spells it
  std::map<Key, Instance> instances_;
  std::map<uint64_t, Key>
      part_of_;  // tensors that are no parameter's own; the first that they are of
  FilePieces pieces_;
  std::vector<bool> used_;
  std::vector<New> new_;
  std::unordered_set<std::string> new_names_;
};

}  // namespace

Result<Composed> compose(const ModuleRule& rule, Names names, const std::vector<Expression>& made,
                         std::span<const Tensor> stored, Manifest& m) {
  std::vector<Tensor> tensors;
  std::vector<std::optional<uint64_t>> places;
  Composed out;
  {
    Composer composer(rule, names, made, m);
    XD_TRY(composer.run());
    if (!composer.any()) return out;
    out = composer.take(tensors, places);
  }
  for (uint64_t i = 0; i < tensors.size(); ++i)
    transform::describe(out.expressions[i], stored, tensors[i]);
  XD_TRY(replace_tensors(places, std::move(tensors), m));
  return out;
}

}  // namespace crossdock::rules
