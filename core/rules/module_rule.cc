#include "core/rules/module_rule.h"

#include "core/rules/rules.pb.h"

#include <algorithm>
#include <utility>

namespace crossdock::rules {

namespace pb = rules::v1;
using manifest::Manifest;

namespace {

// The name itself, with its first number as '#', and with its first two as '#' and '##': what a
// rule may call it.
std::vector<std::string> with_placeholders(const std::string& name) {
  std::vector<std::string> out{name};
  if (name.find_first_of("0123456789") == std::string::npos) return out;
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

bool holds(const pb::Tied& tied, const Manifest& m) {
  if (tied.when().empty()) return true;
  const auto* value = model::config_value(m, tied.when());
  const auto* flag = value ? value->get<bool>() : nullptr;
  return flag ? *flag : tied.by_default();
}

}  // namespace

ModuleRule::ModuleRule(const pb::Architecture& rule, std::string class_name)
    : rule_(&rule), class_name_(std::move(class_name)) {
  for (const pb::Parameter& p : rule.parameter()) by_name_.emplace(p.name(), &p);
}

Result<std::optional<ModuleRule>> ModuleRule::find(const RuleSet& rules, const Manifest& m) {
  const model::ModelClass asked = model::model_class(m);
  const pb::Architecture* rule = rules.module_of(asked);
  if (!rule) return std::optional<ModuleRule>();
  ModuleRule out(*rule, asked.architecture.empty() ? rule->architecture(0) : asked.architecture);
  if (auto compiled = out.compile(); !compiled)
    return std::move(compiled).error().in(cat("rule ", rule->model_type()));
  return std::optional(std::move(out));
}

Result<void> ModuleRule::compile() {
  for (const pb::Renamed& renamed : rule_->renamed()) {
    XD_TRY_SET(renamed_.emplace_back(), base::Regex::compile(renamed.from()));
  }
  for (const pb::Excluded& excluded : rule_->excluded()) {
    XD_TRY_SET(excluded_.emplace_back(), base::Regex::compile(excluded.name()));
  }
  return {};
}

const pb::Parameter* ModuleRule::find_parameter(const std::string& name) const {
  for (const std::string& spelled : with_placeholders(name)) {
    if (const auto it = by_name_.find(spelled); it != by_name_.end()) return it->second;
  }
  return nullptr;
}

bool ModuleRule::knows(const std::string& name) const {
  const auto is_it = [&](const pb::Tied& tied) { return tied.name() == name || tied.to() == name; };
  return find_parameter(name) || std::any_of(rule_->tied().begin(), rule_->tied().end(), is_it);
}

// What the class may call it, from the likeliest on. Both the prefix and today's spelling may lack.
Result<std::vector<std::string>> ModuleRule::spellings_of(const std::string& name) const {
  std::vector<std::string> out{name};
  if (const std::string& prefix = rule_->base().prefix(); !prefix.empty()) {
    out.push_back(prefix + name);
    if (name.starts_with(prefix)) out.push_back(name.substr(prefix.size()));
  }
  for (size_t i = 0, n = out.size(); i < n; ++i) {
    std::string today = out[i];
    for (size_t r = 0; r < renamed_.size(); ++r) {
      XD_TRY_SET(today, renamed_[r].replace(today, rule_->renamed(static_cast<int>(r)).to()));
    }
    if (today != out[i]) out.push_back(std::move(today));
  }
  return out;
}

Result<std::optional<std::string>> ModuleRule::own_name(const std::string& name) const {
  if (knows(name)) return std::optional(name);
  XD_TRY_SET(const auto spellings, spellings_of(name));
  for (const std::string& spelled : spellings) {
    if (knows(spelled)) return std::optional(spelled);
  }
  return std::optional<std::string>();
}

Result<const std::string*> ModuleRule::reason_without(const std::string& name) const {
  XD_TRY_SET(const auto spellings, spellings_of(name));
  for (size_t i = 0; i < excluded_.size(); ++i) {
    for (const std::string& spelled : spellings) {
      XD_TRY_SET(const bool found, excluded_[i].is_in(spelled));
      if (found) return &rule_->excluded(static_cast<int>(i)).reason();
    }
  }
  return static_cast<const std::string*>(nullptr);
}

std::vector<const pb::Tied*> ModuleRule::tied_names(const Manifest& m) const {
  std::vector<const pb::Tied*> out;
  for (const pb::Tied& tied : rule_->tied()) {
    if (holds(tied, m)) out.push_back(&tied);
  }
  return out;
}

const std::string& ModuleRule::base_prefix() const { return rule_->base().prefix(); }

std::vector<std::string> ModuleRule::no_decay() const {
  return {rule_->no_decay().begin(), rule_->no_decay().end()};
}

}  // namespace crossdock::rules
