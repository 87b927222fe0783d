#include "core/rules/rule_set.h"

#include "core/rules/rules.pb.h"
#include "core/rules/textproto.h"

#include <boost/filesystem/operations.hpp>

#include <algorithm>
#include <utility>

namespace crossdock::rules {

namespace pb = rules::v1;
namespace fs = boost::filesystem;

namespace {

std::vector<fs::path> textprotos_in(const fs::path& folder) {
  std::vector<fs::path> out;
  boost::system::error_code ec;
  for (fs::directory_iterator it(folder, ec); !ec && it != fs::directory_iterator();
       it.increment(ec)) {
    if (it->path().extension() == ".textproto") out.push_back(it->path());
  }
  std::sort(out.begin(), out.end());
  return out;
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

RuleSet::RuleSet(std::vector<pb::Architecture> all)
    : all_(std::make_shared<const std::vector<pb::Architecture>>(std::move(all))) {}

std::shared_ptr<const std::vector<pb::Architecture>> RuleSet::none() {
  return std::make_shared<const std::vector<pb::Architecture>>();
}

Result<RuleSet> RuleSet::load(const RuleFiles& from) {
  std::vector<fs::path> files = from.files;
  for (const fs::path& folder : from.folders) {
    const auto found = textprotos_in(folder);
    files.insert(files.end(), found.begin(), found.end());
  }
  std::vector<pb::Architecture> all;
  for (const fs::path& file : files) {
    XD_TRY_SET(all.emplace_back(), read_textproto<pb::Architecture>(file.string(), "a rule"));
    if (!all.back().base().architecture().empty())
      all.push_back(base_of(pb::Architecture(all.back())));
  }
  return RuleSet(std::move(all));
}

const pb::Architecture* RuleSet::module_of(const model::ModelClass& asked) const {
  if (asked.model_type.empty()) return nullptr;
  std::vector<const pb::Architecture*> of_type;
  for (const pb::Architecture& rule : *all_) {
    if (rule.model_type() != asked.model_type || rule.parameter().empty()) continue;
    const auto& classes = rule.architecture();
    if (std::find(classes.begin(), classes.end(), asked.architecture) != classes.end())
      return &rule;
    of_type.push_back(&rule);
  }
  return asked.architecture.empty() && of_type.size() == 1 ? of_type[0] : nullptr;
}

}  // namespace crossdock::rules
