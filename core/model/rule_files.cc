#include "core/model/rule_files.h"

#include "core/model/textproto.h"

#include <boost/filesystem/operations.hpp>

#include <algorithm>

namespace crossdock::model {

namespace pb = rules::v1;
namespace fs = boost::filesystem;

std::vector<fs::path> rule_files(const std::vector<fs::path>& folders) {
  std::vector<fs::path> out;
  for (const fs::path& folder : folders) {
    boost::system::error_code ec;
    std::vector<fs::path> files;
    for (fs::directory_iterator it(folder, ec); !ec && it != fs::directory_iterator();
         it.increment(ec)) {
      if (it->path().extension() == ".textproto") files.push_back(it->path());
    }
    std::sort(files.begin(), files.end());
    out.insert(out.end(), files.begin(), files.end());
  }
  return out;
}

Result<std::optional<pb::Architecture>> find_rule(const std::vector<fs::path>& folders,
                                                  const ModelClass& asked) {
  std::optional<pb::Architecture> of_type;
  size_t n_of_type = 0;
  if (asked.model_type.empty()) return of_type;
  for (const fs::path& file : rule_files(folders)) {
    XD_TRY_SET(pb::Architecture rule, read_textproto<pb::Architecture>(file.string(), "a rule"));
    const auto& classes = rule.architecture();
    if (rule.model_type() != asked.model_type) continue;
    if (std::find(classes.begin(), classes.end(), asked.architecture) != classes.end())
      return std::optional(std::move(rule));
    ++n_of_type;
    of_type = std::move(rule);
  }
  if (!asked.architecture.empty() || n_of_type != 1) return std::optional<pb::Architecture>();
  return of_type;
}

Result<NamesOfToday> NamesOfToday::by(const pb::Architecture& rule) {
  std::vector<std::string> from;
  for (const pb::Renamed& renamed : rule.renamed()) from.push_back(renamed.from());
  auto compiled = base::compile_all(from);
  if (!compiled) return std::move(compiled).error().in(cat("rule ", rule.model_type()));
  return NamesOfToday(rule, *std::move(compiled));
}

Result<std::string> NamesOfToday::of(std::string name) const {
  for (size_t i = 0; i < from_.size(); ++i) {
    XD_TRY_SET(name, from_[i].replace(name, rule_->renamed(static_cast<int>(i)).to()));
  }
  return name;
}

}  // namespace crossdock::model
