#include "core/rules/config_check.h"

#include "core/base/text.h"
#include "core/rules/rules.pb.h"

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
                     " elements in all: if it was saved under ZeRO-3 without gathering, get the "
                     "weights with DeepSpeed's "
                     "zero_to_fp32.py"));
}

class Check {
 public:
  Check(const ModuleRule& rule, const Manifest& m, bool ignore_sizes)
      : rule_(rule), m_(m), ignore_sizes_(ignore_sizes) {}

  Result<void> run() {
    for (const Tensor& t : m_.tensors) {
      if (!t.excluded.empty()) continue;
      XD_TRY(check_shape(t, t.target()));
      count_layer(t.target());
    }
    return ignore_sizes_ ? Result<void>() : check_layers();
  }

 private:
  // A size that config.json has no key for ("?"), or that it lacks, is not compared.
  Result<void> check_shape(const Tensor& t, const std::string& name) const {
    const pb::Parameter* parameter = rule_.find_parameter(name);
    if (!parameter || parameter->dim().empty()) return {};
    const auto& dims = parameter->dim();
    if (t.shape.size() != static_cast<size_t>(dims.size()))
      return wrong_rank(t, rule_, dims.size());
    for (int i = 0; i < dims.size() && !ignore_sizes_; ++i) {
      const auto expected = model::number_of(model::config_value(m_, dims[i]));
      const uint64_t found = t.shape[static_cast<size_t>(i)];
      if (!expected || *expected == found) continue;
      return invalid(cat("tensor ", base::printable(t.name), ": expected ", *expected,
                         " in dimension ", i, ", as ", dims[i], " of config.json says, found ",
                         found, kAdvice));
    }
    return {};
  }

  // Remembers the layer that a name belongs to, by the prefix of the rule's `layers`.
  void count_layer(const std::string& name) {
    for (const pb::ModuleLayers& layers : rule_.rule().layers()) {
      if (!name.starts_with(layers.prefix())) continue;
      uint64_t number = 0;
      const char* begin = name.data() + layers.prefix().size();
      const auto [end, error] = std::from_chars(begin, name.data() + name.size(), number);
      if (error == std::errc() && *end == '.') found_[layers.prefix()].insert(number);
    }
  }

  // As many layers as config.json says, numbered from 0 without gaps. A model with none of that
  // kind is left to check_parameters() (module.h), which knows whether they are needed.
  Result<void> check_layers() const {
    for (const pb::ModuleLayers& layers : rule_.rule().layers()) {
      const auto found = found_.find(layers.prefix());
      const auto expected = model::number_of(model::config_value(m_, layers.count()));
      if (found == found_.end() || !expected) continue;
      const auto& numbers = found->second;
      if (numbers.size() == *expected && *numbers.rbegin() == *expected - 1) continue;
      return invalid(cat("expected ", *expected, " layers, as ", layers.count(),
                         " of config.json says, found ", numbers.size(), " (", layers.prefix(),
                         *numbers.begin(), " to ", *numbers.rbegin(),
                         numbers.size() == *expected ? ", with gaps)" : ")", kAdvice));
    }
    return {};
  }

  const ModuleRule& rule_;
  const Manifest& m_;
  const bool ignore_sizes_;
  std::map<std::string, std::set<uint64_t>> found_;  // layers, by prefix
};

}  // namespace

Result<void> check_against_config(const ModuleRule& rule, const Manifest& m, bool ignore_sizes) {
  return Check(rule, m, ignore_sizes).run();
}

}  // namespace crossdock::rules
