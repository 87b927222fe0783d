// SPDX-License-Identifier: Apache-2.0
#include "core/rules/rule_set.h"

#include "core/base/regex.h"
#include "core/base/text.h"
#include "core/rules/parts.h"
#include "core/rules/rules.pb.h"
#include "core/rules/textproto.h"

#include <boost/filesystem/operations.hpp>

#include <crossdock/file_name.hpp>

#include <algorithm>
#include <utility>

namespace crossdock::rules {

namespace pb = rules::v1;
namespace fs = boost::filesystem;

namespace {

using Rule = std::shared_ptr<const pb::Architecture>;

constexpr size_t kMaxText = 1000;     // bytes of what names become
constexpr size_t kMaxNameParts = 64;  // between dots

Result<void> check_name(const std::string& name) {
  for (const std::string_view part : parts_of(name)) {
    if (part.find('#') != part.npos && !placeholder(part))
      return invalid(cat("expected numbers alone between dots, found ", name.substr(0, 100)));
  }
  if (name.size() <= kMaxText && parts_of(name).size() <= kMaxNameParts) return {};
  return invalid(cat("expected names of at most ", kMaxNameParts, " parts and ", kMaxText,
                     " bytes, found more: ", name.substr(0, 60)));
}

// That every part of a file's tensors is named.
Result<void> check_parameters(const google::protobuf::RepeatedPtrField<pb::Parameter>& parameters) {
  for (const pb::Parameter& parameter : parameters) {
    if (parameter.name().empty()) return invalid("expected a parameter with a name, found none");
    XD_TRY(check_name(parameter.name()));
    const auto checked = for_each_leaf(parameter.from(), [&](const pb::Part& part) -> Result<void> {
      if (!part.from().empty()) return check_name(part.from());
      return invalid(cat("expected a name or parts in `from` of ", parameter.name(),
                         ", found "
                         "neither"));
    });
    XD_TRY(checked);
  }
  return {};
}

Result<Rule> read_rule(const fs::path& file) {
  XD_TRY_SET(auto rule, read_textproto<pb::Architecture>(file.string(), "a rule"));
  if ((!rule.parameter().empty() || rule.has_base()) && rule.architecture().empty())
    return invalid(cat(file.string(),
                       ": expected architecture, the class that the parameters are "
                       "of, found none"));
  const auto check = [&]() -> Result<void> {
    XD_TRY(check_parameters(rule.parameter()));
    XD_TRY(check_parameters(rule.buffer()));
    for (const pb::Tied& tied : rule.tied()) {
      XD_TRY(check_name(tied.name()));
      XD_TRY(check_name(tied.to()));
    }
    for (const pb::Renamed& renamed : rule.renamed()) {
      XD_TRY(check_name(renamed.to()));
      XD_TRY(base::Regex::compile(renamed.from()));
    }
    for (const pb::Excluded& excluded : rule.excluded())
      XD_TRY(base::Regex::compile(excluded.name()));
    for (const std::string& without : rule.base().without()) XD_TRY(base::Regex::compile(without));
    return {};
  };
  if (auto checked = check(); !checked) return std::move(checked).error().in(file.string());
  return std::make_shared<const pb::Architecture>(std::move(rule));
}

bool is_for(const pb::Architecture& rule, const model::ModelClass& asked) {
  const auto& classes = rule.architecture();
  return rule.model_type() == asked.model_type &&
         std::find(classes.begin(), classes.end(), asked.architecture) != classes.end();
}

// The folders in a folder of rules, in order of their names; none where there is no such folder.
// One that cannot be read whole is an error, for fewer rules would give other names.
Result<std::vector<fs::path>> entries_of(const fs::path& folder) {
  std::vector<fs::path> out;
  boost::system::error_code ec;
  if (!fs::exists(folder, ec)) return out;
  fs::directory_iterator it(folder, ec);
  for (; !ec && it != fs::directory_iterator(); it.increment(ec)) out.push_back(it->path());
  if (ec) return Error{XD_IO, cat("rules in ", folder.string(), ": ", ec.message())};
  std::sort(out.begin(), out.end());
  return out;
}

bool is_there(const fs::path& file) {
  boost::system::error_code ec;
  return fs::exists(file, ec);
}

void add_prefix(const std::string& prefix, pb::Part& part) {
  if (!part.from().empty()) part.set_from(prefix + part.from());
  for (pb::Part& child : *part.mutable_part()) add_prefix(prefix, child);
}

// What the rule of a base class says, said of a class that has it as a member.
class Member {
 public:
  static Result<pb::Architecture> join(const pb::Architecture& base, pb::Architecture rule) {
    Member member(rule.base());
    for (const std::string& text : rule.base().without()) {
      XD_TRY_SET(member.without_.emplace_back(), base::Regex::compile(text));
    }
    pb::Architecture all;
    XD_TRY(member.add(base.parameter(), *all.mutable_parameter()));
    XD_TRY(member.add(base.buffer(), *all.mutable_buffer()));
    all.mutable_choice()->MergeFrom(base.choice());
    all.set_unordered(base.unordered());
    all.mutable_sub_config()->MergeFrom(base.sub_config());
    all.mutable_renamed()->MergeFrom(base.renamed());
    for (pb::Tied tied : base.tied()) {
      XD_TRY_SET(const bool is_not, base::any_is_in(member.without_, tied.name()));
      if (is_not) continue;
      tied.set_name(member.prefix_ + tied.name());
      tied.set_to(member.prefix_ + tied.to());
      *all.add_tied() = std::move(tied);
    }
    for (pb::ModuleLayers layers : base.layers()) {
      XD_TRY_SET(const bool is_not, base::any_is_in(member.without_, layers.prefix()));
      if (is_not) continue;
      layers.set_prefix(member.prefix_ + layers.prefix());
      *all.add_layers() = std::move(layers);
    }
    all.MergeFrom(rule);
    return all;
  }

 private:
  explicit Member(const pb::Base& base) : prefix_(base.prefix()) {}

  Result<void> add(const google::protobuf::RepeatedPtrField<pb::Parameter>& from,
                   google::protobuf::RepeatedPtrField<pb::Parameter>& to) const {
    for (pb::Parameter parameter : from) {
      XD_TRY_SET(const bool is_not, base::any_is_in(without_, parameter.name()));
      if (is_not) continue;
      parameter.set_name(prefix_ + parameter.name());
      for (pb::Part& part : *parameter.mutable_from()) add_prefix(prefix_, part);
      to.Add(std::move(parameter));
    }
    return {};
  }

  const std::string& prefix_;
  std::vector<base::Regex> without_;
};

}  // namespace

Result<RuleSet> RuleSet::load(const RuleFiles& from) {
  RuleSet out;
  out.folders_ = from.folders;
  for (const fs::path& file : from.files) {
    XD_TRY_SET(out.of_files_.emplace_back(), read_rule(file));
  }
  return out;
}

// config.json's model_type names the folder. A model of another type may name the class too, and
// then it is looked for in all.
Result<Rule> RuleSet::find(const model::ModelClass& asked) const {
  for (const Rule& rule : of_files_) {
    if (is_for(*rule, asked) && (rule->parameter_size() > 0 || rule->has_base())) return rule;
  }
  const std::string name = asked.architecture + ".textproto";
  if (!name_fault(name).empty() || !name_fault(asked.model_type).empty()) return Rule();
  for (const fs::path& folder : folders_) {
    if (const fs::path file = folder / asked.model_type / name; is_there(file))
      return read_rule(file);
    XD_TRY_SET(const auto model_types, entries_of(folder));
    for (const fs::path& model_type : model_types) {
      if (is_there(model_type / name)) return read_rule(model_type / name);
    }
  }
  return Rule();
}

Result<Rule> RuleSet::module_of(const model::ModelClass& asked) const {
  if (asked.model_type.empty() || asked.architecture.empty()) return Rule();
  XD_TRY_SET(Rule rule, find(asked));
  return rule ? with_base(std::move(rule)) : rule;
}

Result<Rule> RuleSet::with_base(Rule rule) const {
  const std::string& base = rule->base().architecture();
  if (base.empty()) return rule;
  XD_TRY_SET(const Rule of_base, find({rule->model_type(), base}));
  if (!of_base || !of_base->base().architecture().empty())
    return invalid(cat("rule ", rule->architecture(0), ": expected a rule of its base class ", base,
                       " that says everything itself, found ", of_base ? "another" : "none"));
  XD_TRY_SET(pb::Architecture all, Member::join(*of_base, *rule));
  return std::make_shared<const pb::Architecture>(std::move(all));
}

Result<Rules> RuleSet::modules_of(const std::string& model_type) const {
  Rules out;
  if (!name_fault(model_type).empty()) return out;
  for (const fs::path& folder : folders_) {
    XD_TRY_SET(const auto files, entries_of(folder / model_type));
    for (const fs::path& file : files) {
      if (file.extension() != ".textproto") continue;
      XD_TRY_SET(Rule rule, read_rule(file));
      if (rule->architecture().empty()) continue;  // layouts
      XD_TRY_SET(out.emplace_back(), with_base(std::move(rule)));
    }
  }
  return out;
}

Result<Rules> RuleSet::with_layouts_of(const std::string& format) const {
  Rules out = of_files_;
  const std::string name = format + ".textproto";
  if (!name_fault(name).empty()) return out;
  for (const fs::path& folder : folders_) {
    XD_TRY_SET(const auto model_types, entries_of(folder));
    for (const fs::path& model_type : model_types) {
      if (!is_there(model_type / name)) continue;
      XD_TRY_SET(out.emplace_back(), read_rule(model_type / name));
    }
  }
  return out;
}

}  // namespace crossdock::rules
