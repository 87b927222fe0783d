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
    for (fs::directory_iterator it(folder, ec); !ec && it != fs::directory_iterator(); it.increment(ec)) {
      if (it->path().extension() == ".textproto") files.push_back(it->path());
    }
    std::sort(files.begin(), files.end());
    out.insert(out.end(), files.begin(), files.end());
  }
  return out;
}

Result<std::optional<pb::Architecture>> find_rule(const std::vector<fs::path>& folders, const ModelClass& asked) {
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

}  // namespace crossdock::model
