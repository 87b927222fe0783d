// SPDX-License-Identifier: Apache-2.0
#include "core/rules/module_rule.h"

#include "core/rules/facts.h"
#include "core/rules/parts.h"

#include <algorithm>
#include <set>
#include <utility>

namespace crossdock::rules {

namespace pb = rules::v1;
using manifest::Manifest;

namespace {

bool holds(const pb::Tied& tied, const Manifest& m) {
  if (tied.when().empty()) return true;
  const auto fact = Facts(m).find("config." + tied.when());
  const auto* flag = fact ? fact->value->get<bool>() : nullptr;
  return flag ? *flag : tied.by_default();
}

// Whether the model holds models of the types that the rule is for.
bool is_of_types(const pb::Architecture& rule, const Manifest& m) {
  const Facts facts(m);
  return std::all_of(rule.sub_config().begin(), rule.sub_config().end(), [&](const auto& sub) {
    const auto type = facts.find(cat("config.", sub.key(), ".model_type"));
    const std::string* text = model::text_of(type ? type->value : nullptr);
    return !text || *text == sub.model_type();
  });
}

}  // namespace

ModuleRule::ModuleRule(std::shared_ptr<const pb::Architecture> rule, std::string class_name)
    : rule_(std::move(rule)), class_name_(std::move(class_name)) {
  for (const pb::Parameter& p : rule_->parameter()) add(p, false);
  for (const pb::Parameter& p : rule_->buffer()) add(p, true);
  for (const pb::Tied& tied : rule_->tied()) {
    tied_names_.add(tied.name(), 0);
    tied_names_.add(tied.to(), 0);
  }
}

void ModuleRule::add(const pb::Parameter& parameter, bool is_buffer) {
  const auto place = static_cast<uint32_t>(own_.size());
  own_names_.add(parameter.name(), place);
  own_.push_back({&parameter, place, is_buffer, {}});
  for (const pb::Part& from : parameter.from()) {
    for (const std::string& name : names_of(from)) {
      stored_names_.add(name, static_cast<uint32_t>(stored_.size()));
      stored_.push_back({own_.back(), &from});
    }
  }
}

Result<ModuleRule> ModuleRule::compiled(std::shared_ptr<const pb::Architecture> rule,
                                        std::string class_name) {
  ModuleRule out(std::move(rule), std::move(class_name));
  if (auto done = out.compile(); !done)
    return std::move(done).error().in(cat("rule ", out.class_name_));
  return out;
}

Result<std::optional<ModuleRule>> ModuleRule::find(const RuleSet& rules, const Manifest& m) {
  const model::ModelClass asked = model::model_class(m);
  XD_TRY_SET(auto rule, rules.module_of(asked));
  if (!rule || !is_of_types(*rule, m)) return std::optional<ModuleRule>();
  XD_TRY_SET(ModuleRule out, compiled(std::move(rule), asked.architecture));
  return std::optional(std::move(out));
}

Result<std::optional<ModuleRule>> ModuleRule::find_like(const RuleSet& rules, const Manifest& m) {
  const model::ModelClass asked = model::model_class(m);
  if (!asked.architecture.empty()) return std::optional<ModuleRule>();
  XD_TRY_SET(const Rules of_type, rules.modules_of(asked.model_type));
  for (const auto& rule : of_type) {
    XD_TRY_SET(ModuleRule like, compiled(rule, rule->architecture(0)));
    bool has_all = is_of_types(*rule, m);
    for (const manifest::Tensor& t : m.tensors) {
      if (!has_all || !t.excluded.empty()) continue;
      XD_TRY_SET(const auto stored, like.find_stored(t.target()));
      has_all = stored.has_value();
    }
    if (has_all) return std::optional(std::move(like));
  }
  return std::optional<ModuleRule>();
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

std::optional<ModuleRule::Found> ModuleRule::find(const std::string& name) const {
  const auto matches = own_names_.find(name);
  if (matches.empty()) return std::nullopt;
  Found out = own_[matches[0].id];
  out.numbers = matches[0].numbers;
  return out;
}

bool ModuleRule::knows(const std::string& name) const {
  return !own_names_.find(name).empty() || !tied_names_.find(name).empty();
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

// A name in files goes before one of the module: transformers too renames what it can.
Result<std::optional<ModuleRule::Stored>> ModuleRule::find_stored(const std::string& name) const {
  XD_TRY_SET(const auto spellings, spellings_of(name));
  for (const std::string& spelled : spellings) {
    Stored out{spelled, {}};
    for (const NameTree::Match& match : stored_names_.find(spelled)) {
      out.uses.push_back(stored_[match.id]);
      out.uses.back().of.numbers = match.numbers;
    }
    if (!out.uses.empty() || knows(spelled)) return std::optional(std::move(out));
  }
  return std::optional<Stored>();
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

std::vector<ModuleRule::TiedNames> ModuleRule::tied_names(const Manifest& m) const {
  std::vector<TiedNames> out;
  // Of several conditions for one pair each is enough.
  const auto add = [&out](TiedNames pair) {
    const bool is_new = std::find(out.begin(), out.end(), pair) == out.end();
    if (is_new && pair.name != pair.to) out.push_back(std::move(pair));
  };
  for (const pb::Tied& tied : rule_->tied()) {
    if (!holds(tied, m)) continue;
    const size_t depth = count_numbers(tied.name());
    if (depth == 0) {
      add({tied.name(), tied.to()});
      continue;
    }
    NameTree names;
    names.add(tied.name(), 0);
    if (count_numbers(tied.to()) == depth) names.add(tied.to(), 0);
    std::set<Numbers> there;
    for (const manifest::Tensor& t : m.tensors) {
      for (const NameTree::Match& match : names.find(t.target())) there.insert(match.numbers);
    }
    for (const Numbers& numbers : there)
      add({with_numbers(tied.name(), numbers), with_numbers(tied.to(), numbers)});
  }
  return out;
}

const std::string& ModuleRule::base_prefix() const { return rule_->base().prefix(); }

}  // namespace crossdock::rules
