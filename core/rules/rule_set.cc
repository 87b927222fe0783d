#include "core/rules/rule_set.h"

#include "core/base/regex.h"
#include "core/rules/rules.pb.h"
#include "core/rules/textproto.h"

#include <boost/filesystem/operations.hpp>

#include <algorithm>
#include <utility>

namespace crossdock::rules {

namespace pb = rules::v1;
namespace fs = boost::filesystem;

namespace {

// A folder that is not there has none; one that cannot be read whole is an error, for fewer rules
// would give other names.
Result<std::vector<fs::path>> textprotos_in(const fs::path& folder) {
  std::vector<fs::path> out;
  boost::system::error_code ec;
  if (!fs::exists(folder, ec)) return out;
  fs::directory_iterator it(folder, ec);
  for (; !ec && it != fs::directory_iterator(); it.increment(ec)) {
    if (it->path().extension() == ".textproto") out.push_back(it->path());
  }
  if (ec) return Error{XD_IO, cat("rules in ", folder.string(), ": ", ec.message())};
  std::sort(out.begin(), out.end());
  return out;
}

Result<void> check_regexes(const pb::Architecture& rule) {
  for (const pb::Renamed& renamed : rule.renamed()) XD_TRY(base::Regex::compile(renamed.from()));
  for (const pb::Excluded& excluded : rule.excluded())
    XD_TRY(base::Regex::compile(excluded.name()));
  for (const std::string& regex : rule.no_decay()) XD_TRY(base::Regex::compile(regex));
  return {};
}

Result<pb::Architecture> read_rule(const fs::path& file) {
  XD_TRY_SET(auto rule, read_textproto<pb::Architecture>(file.string(), "a rule"));
  if ((!rule.parameter().empty() || rule.has_base()) && rule.architecture().empty())
    return invalid(cat(file.string(),
                       ": expected architecture, the class that the parameters are "
                       "of, found none"));
  return rule;
}

// "transformer.h.#.w" as a regular expression that matches the names which it stands for.
std::string as_regex(const std::string& name) {
  std::string out = "^";
  for (size_t i = 0; i < name.size(); ++i) {
    if (name[i] == '.') {
      out += "\\.";
    } else if (name[i] != '#') {
      out += name[i];
    } else {
      if (i + 1 < name.size() && name[i + 1] == '#') ++i;
      out += "\\d+";
    }
  }
  return out + "$";
}

// The expression without the prefix that it is anchored to; one without an anchor stays.
std::string without_prefix(const std::string& regex, const std::string& prefix) {
  const std::string anchored = as_regex(prefix).substr(0, as_regex(prefix).size() - 1);
  return regex.starts_with(anchored) ? "^" + regex.substr(anchored.size()) : regex;
}

// The rule of the base class, which has the parameters of the member that holds it in `rule`'s
// class and nothing else.
pb::Architecture base_of(const pb::Architecture& rule) {
  const std::string& prefix = rule.base().prefix();
  pb::Architecture out;
  out.set_model_type(rule.model_type());
  out.add_architecture(rule.base().architecture());
  out.mutable_base()->set_prefix(prefix);
  const auto strip = [&](const std::string& name) { return name.substr(prefix.size()); };
  for (const pb::Parameter& p : rule.parameter()) {
    if (p.name().starts_with(prefix)) {
      *out.add_parameter() = p;
      out.mutable_parameter()->rbegin()->set_name(strip(p.name()));
    } else {
      pb::Excluded& head = *out.add_excluded();
      head.set_name(as_regex(p.name()));
      head.set_reason("a parameter of " + rule.architecture(0) + ", which " +
                      rule.base().architecture() + " has not");
    }
  }
  for (const pb::Tied& tied : rule.tied()) {
    if (!tied.name().starts_with(prefix) || !tied.to().starts_with(prefix)) continue;
    pb::Tied& own = *out.add_tied() = tied;
    own.set_name(strip(tied.name()));
    own.set_to(strip(tied.to()));
  }
  for (const pb::ModuleLayers& layers : rule.layers()) {
    if (!layers.prefix().starts_with(prefix)) continue;
    *out.add_layers() = layers;
    out.mutable_layers()->rbegin()->set_prefix(strip(layers.prefix()));
  }
  for (const std::string& regex : rule.no_decay()) out.add_no_decay(without_prefix(regex, prefix));
  *out.mutable_renamed() = rule.renamed();
  out.mutable_excluded()->MergeFrom(rule.excluded());
  return out;
}

}  // namespace

struct RuleSet::Rules {
  std::vector<pb::Architecture> of_files;
  std::vector<pb::Architecture> of_bases;  // that a rule of a file stands for too
};

RuleSet::RuleSet() : rules_(std::make_shared<const Rules>()) {}

const std::vector<pb::Architecture>& RuleSet::all() const { return rules_->of_files; }

Result<RuleSet> RuleSet::load(const RuleFiles& from) {
  Rules rules;
  const auto add = [&rules](pb::Architecture rule) {
    if (!rule.base().architecture().empty()) rules.of_bases.push_back(base_of(rule));
    rules.of_files.push_back(std::move(rule));
  };
  for (const fs::path& file : from.files) {
    XD_TRY_SET(auto rule, read_rule(file));
    if (auto r = check_regexes(rule); !r) return std::move(r).error().in(file.string());
    add(std::move(rule));
  }
  for (const fs::path& folder : from.folders) {
    XD_TRY_SET(const auto files, textprotos_in(folder));
    for (const fs::path& file : files) {
      XD_TRY_SET(auto rule, read_rule(file));
      add(std::move(rule));
    }
  }
  RuleSet out;
  out.rules_ = std::make_shared<const Rules>(std::move(rules));
  return out;
}

const pb::Architecture* RuleSet::module_of(const model::ModelClass& asked) const {
  if (asked.model_type.empty()) return nullptr;
  std::vector<const pb::Architecture*> of_type;
  for (const auto* list : {&rules_->of_files, &rules_->of_bases}) {
    for (const pb::Architecture& rule : *list) {
      if (rule.model_type() != asked.model_type || rule.parameter().empty()) continue;
      const auto& classes = rule.architecture();
      if (std::find(classes.begin(), classes.end(), asked.architecture) != classes.end())
        return &rule;
      if (list == &rules_->of_files) of_type.push_back(&rule);
    }
  }
  return asked.architecture.empty() && of_type.size() == 1 ? of_type[0] : nullptr;
}

}  // namespace crossdock::rules
