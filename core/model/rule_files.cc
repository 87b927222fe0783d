#include "core/model/rule_files.h"

#include "core/model/textproto.h"

#include <boost/filesystem/operations.hpp>

#include <algorithm>

namespace crossdock::model {

namespace pb = rules::v1;
namespace fs = boost::filesystem;

Result<std::optional<pb::Architecture>> find_rule(const std::vector<fs::path>& folders, const ModelClass& asked) {
  for (const fs::path& folder : folders) {
    boost::system::error_code ec;
    std::vector<fs::path> files;
    for (fs::directory_iterator it(folder, ec); !ec && it != fs::directory_iterator(); it.increment(ec)) {
      if (it->path().extension() == ".textproto") files.push_back(it->path());
    }
    std::sort(files.begin(), files.end());
    for (const fs::path& file : files) {
      XD_TRY_SET(pb::Architecture rule, read_textproto<pb::Architecture>(file.string(), "a rule"));
      const auto& classes = rule.architecture();
      if (rule.model_type() == asked.model_type &&
          std::find(classes.begin(), classes.end(), asked.architecture) != classes.end())
        return std::optional(std::move(rule));
    }
  }
  return std::optional<pb::Architecture>();
}

}  // namespace crossdock::model
