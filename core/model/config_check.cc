#include "core/model/config_check.h"

#include "core/base/text.h"
#include "core/model/rule_files.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <set>
#include <unordered_map>

namespace crossdock::model {

namespace pb = rules::v1;
namespace fs = boost::filesystem;
using manifest::Manifest;
using manifest::Tensor;

namespace {

constexpr std::string_view kAdvice =
    ": convert with the config.json that belongs to these weights, or say --ignore-config-mismatch "
    "if the model was "
    "changed on purpose";

// The name with its first number as '#', and with its first two as '#' and '##': how rules spell
// it.
std::vector<std::string> spellings(const std::string& name) {
  std::vector<std::string> out{name};
  std::string spelled;
  int numbers = 0;
  for (size_t begin = 0; begin <= name.size();) {
    const size_t end = std::min(name.find('.', begin), name.size());
    const std::string part = name.substr(begin, end - begin);
    const bool is_number =
        !part.empty() && part.find_first_not_of("0123456789") == std::string::npos;
    spelled += is_number && numbers < 2 ? (numbers++ == 0 ? "#" : "##") : part;
    if (is_number && numbers <= 2) out.push_back(spelled + name.substr(end));
    if (end < name.size()) spelled += '.';
    begin = end + 1;
  }
  return out;
}

Error wrong_rank(const Tensor& t, const pb::Architecture& rule, int expected) {
  return invalid(cat("tensor ", base::printable(t.name), ": expected ", expected,
                     " dimensions, as ", rule.architecture(0), " has, found ", t.shape.size(),
                     " with ", *checked_product(t.shape),
                     " elements in all: if it was saved under ZeRO-3 without gathering, get the "
                     "weights with DeepSpeed's "
                     "zero_to_fp32.py"));
}

class Check {
 public:
  Check(const pb::Architecture& rule, const Manifest& m, bool ignore_sizes)
      : rule_(rule), m_(m), ignore_sizes_(ignore_sizes) {
    for (const pb::Parameter& p : rule.parameter()) by_name_.emplace(p.name(), &p);
  }

  Result<void> run() {
    XD_TRY_SET(const auto names, NamesOfToday::by(rule_));
    for (const Tensor& t : m_.tensors) {
      if (!t.left_out.empty()) continue;
      XD_TRY_SET(const std::string name, names.of(t.target()));
      XD_TRY(check_shape(t, name));
      count_layer(name);
    }
    return ignore_sizes_ ? Result<void>() : check_layers();
  }

 private:
  Result<void> check_shape(const Tensor& t, const std::string& name) const {
    const pb::Parameter* parameter = nullptr;
    for (const std::string& spelled : spellings(name)) {
      if (const auto it = by_name_.find(spelled); it != by_name_.end()) parameter = it->second;
    }
    if (!parameter || parameter->dim().empty()) return {};
    const auto& dims = parameter->dim();
    if (t.shape.size() != static_cast<size_t>(dims.size()))
      return wrong_rank(t, rule_, dims.size());
    for (int i = 0; i < dims.size() && !ignore_sizes_; ++i) {
      const auto expected = number_of(config_value(m_, dims[i]));
      const uint64_t found = t.shape[static_cast<size_t>(i)];
      if (!expected || *expected == found) continue;
      return invalid(cat("tensor ", base::printable(t.name), ": expected ", *expected,
                         " in dimension ", i, ", as ", dims[i], " of config.json says, found ",
                         found, kAdvice));
    }
    return {};
  }

  void count_layer(const std::string& name) {
    for (const pb::ModuleLayers& layers : rule_.layers()) {
      if (!name.starts_with(layers.prefix())) continue;
      uint64_t number = 0;
      const char* begin = name.data() + layers.prefix().size();
      const auto [end, error] = std::from_chars(begin, name.data() + name.size(), number);
      if (error == std::errc() && *end == '.') found_[layers.prefix()].insert(number);
    }
  }

  Result<void> check_layers() const {
    for (const pb::ModuleLayers& layers : rule_.layers()) {
      const auto found = found_.find(layers.prefix());
      const auto expected = number_of(config_value(m_, layers.count()));
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

  const pb::Architecture& rule_;
  const Manifest& m_;
  const bool ignore_sizes_;
  std::unordered_map<std::string, const pb::Parameter*> by_name_;
  std::map<std::string, std::set<uint64_t>> found_;  // layers, by prefix
};

}  // namespace

Result<void> check_against_config(const std::vector<fs::path>& folders, const Manifest& m,
                                  bool ignore_sizes) {
  XD_TRY_SET(const auto rule, find_rule(folders, model_class(m)));
  return rule ? Check(*rule, m, ignore_sizes).run() : Result<void>();
}

}  // namespace crossdock::model
