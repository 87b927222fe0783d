// SPDX-License-Identifier: Apache-2.0
#include "core/rules/module_order.h"

#include "core/rules/rules.pb.h"

namespace crossdock::rules {

namespace {

// Calls visit("model"), visit("model.layers"), visit("model.layers.#") and so on to the whole name.
template <class Visit>
void for_each_module(const std::string& name, const Visit& visit) {
  for (size_t end = name.find('.'); end != std::string::npos; end = name.find('.', end + 1))
    visit(name.substr(0, end));
  visit(name);
}

std::string_view last_part(const std::string& module) {
  return std::string_view(module).substr(module.rfind('.') + 1);
}

std::string row_of(const std::string& module) {
  return module.substr(0, module.rfind('.') + 1) + "#";
}

}  // namespace

ModuleOrder::ModuleOrder(const v1::Architecture& rule) {
  for (const v1::Parameter& parameter : rule.parameter()) {
    for_each_module(parameter.name(), [&](const std::string& module) {
      if (placeholder(last_part(module))) rows_.insert(row_of(module));
    });
  }
  uint64_t place = 0;
  for (const v1::Parameter& parameter : rule.parameter()) {
    for_each_module(parameter.name(),
                    [&](const std::string& module) { places_.emplace(in_row(module), place); });
    ++place;
  }
}

std::string ModuleOrder::in_row(const std::string& module) const {
  const bool is_numbered = placeholder(last_part(module)) || number_in(last_part(module));
  const std::string row = row_of(module);
  return is_numbered && rows_.contains(row) ? row : module;
}

// For each module on the way: whether the name leads further, its place among its neighbours, its
// number.
ModuleOrder::Key ModuleOrder::key(const ModuleRule::Found& found) const {
  Key out;
  const std::string& name = found.parameter->name();
  for_each_module(name, [&](const std::string& module) {
    const auto place = places_.find(in_row(module));
    const auto number = placeholder(last_part(module));
    out.push_back(module.size() < name.size());
    out.push_back(place == places_.end() ? UINT64_MAX : place->second);
    out.push_back(number ? found.numbers[number->depth] : number_in(last_part(module)).value_or(0));
  });
  return out;
}

}  // namespace crossdock::rules
