// SPDX-License-Identifier: Apache-2.0
#include "core/rules/config_check.h"

#include "core/base/text.h"
#include "core/rules/rules.pb.h"

#include <crossdock/bytes.hpp>

#include <algorithm>
#include <charconv>
#include <map>
#include <set>

namespace crossdock::rules {

namespace pb = rules::v1;
using manifest::Manifest;
using manifest::Tensor;

namespace {

constexpr std::string_view kAdvice =
    ": convert with the config.json that belongs to these weights, or say --ignore-config-mismatch "
    "if the model was "
    "changed on purpose";

Error wrong_rank(const Tensor& t, const ModuleRule& rule, int expected) {
  return invalid(cat("tensor ", base::printable(t.name), ": expected ", expected,
                     " dimensions, as ", rule.class_name(), " has, found ", t.shape.size(),
                     " with ", *checked_product(t.shape),
                     " elements in all: if it was saved under ZeRO-3 without gathering, convert the "
                     "job's DeepSpeed checkpoint, the folder that holds `latest`"));
}

class Check {
 public:
  Check(const ModuleRule& rule, const Manifest& m, bool ignore_sizes)
      : rule_(rule), m_(m), facts_(m), ignore_sizes_(ignore_sizes) {}

  Result<void> run() {
    for (const Tensor& t : m_.tensors) {
      if (!t.excluded.empty()) continue;
      const auto found = rule_.find(t.target());
      if (!found) continue;
      XD_TRY(check_shape(t, *found));
      count_layers(*found);
    }
    return ignore_sizes_ ? Result<void>() : check_layers();
  }

 private:
  // A size that config.json has no key for ("?"), or that it lacks, is not compared.
  Result<void> check_shape(const Tensor& t, const ModuleRule::Found& found) const {
    const auto& dims = found.parameter->dim();
    if (dims.empty()) return {};
    if (t.shape.size() != static_cast<size_t>(dims.size()))
      return wrong_rank(t, rule_, dims.size());
    for (int i = 0; i < dims.size() && !ignore_sizes_; ++i) {
      const auto expected = size_in_config(facts_, dims[i]);
      const uint64_t size = t.shape[static_cast<size_t>(i)];
      if (!expected || *expected == size) continue;
      return invalid(cat("tensor ", base::printable(t.name), ": expected ", *expected,
                         " in dimension ", i, ", as ", dims[i], " of config.json says, found ",
                         size, kAdvice));
    }
    return {};
  }

  // Remembers the layers that a name belongs to, of those that the rule's `layers` are about.
  void count_layers(const ModuleRule::Found& found) {
    const std::string& name = found.parameter->name();
    for (const pb::ModuleLayers& layers : rule_.rule().layers()) {
      const size_t depth = count_numbers(layers.prefix());
      if (depth >= found.numbers.size() || !name.starts_with(layers.prefix())) continue;
      const std::string_view behind = std::string_view(name).substr(layers.prefix().size());
      if (!placeholder(behind.substr(0, behind.find('.')))) continue;
      found_[with_numbers(layers.prefix(), found.numbers)].insert(found.numbers[depth]);
      count_of_[with_numbers(layers.prefix(), found.numbers)] = &layers.count();
    }
  }

  // As many layers as config.json says, numbered from 0 without gaps. A model with none of that
  // kind is left to check_parameters() (module.h), which knows whether they are needed.
  Result<void> check_layers() const {
    for (const auto& [prefix, numbers] : found_) {
      const auto expected = size_in_config(facts_, *count_of_.at(prefix));
      if (!expected) continue;
      if (numbers.size() == *expected && *numbers.rbegin() == *expected - 1) continue;
      return invalid(cat("expected ", *expected, " layers, as ", *count_of_.at(prefix),
                         " of config.json says, found ", numbers.size(), " (", prefix,
                         *numbers.begin(), " to ", *numbers.rbegin(),
                         numbers.size() == *expected ? ", with gaps)" : ")", kAdvice));
    }
    return {};
  }

  const ModuleRule& rule_;
  const Manifest& m_;
  const Facts facts_;
  const bool ignore_sizes_;
  std::map<std::string, std::set<uint64_t>> found_;     // layers, by prefix
  std::map<std::string, const std::string*> count_of_;  // the rule's key, by prefix
};

}  // namespace

std::optional<uint64_t> size_in_config(const Facts& facts, const std::string& dim) {
  uint64_t factor = 1;
  const char* const end = dim.data() + dim.size();
  const auto [rest, error] = std::from_chars(dim.data(), end, factor);
  const bool has_factor = error == std::errc() && rest != end && *rest == '*';
  const std::string key = has_factor ? std::string(rest + 1, end) : dim;
  const auto fact = facts.find("config." + key);
  const auto size = model::number_of(fact ? fact->value : nullptr);
  return size ? checked_mul(has_factor ? factor : 1, *size) : std::nullopt;
}

Result<void> check_against_config(const ModuleRule& rule, const Manifest& m, bool ignore_sizes) {
  return Check(rule, m, ignore_sizes).run();
}

}  // namespace crossdock::rules
