// SPDX-License-Identifier: Apache-2.0
#include "core/io/paths.h"

#include "core/io/leftovers.h"
#include "core/io/small_file.h"
#include "core/report/report.h"

#include <boost/filesystem/operations.hpp>

#include <algorithm>

namespace crossdock::io {

namespace {
// Of a model with millions of tensors.
constexpr uint64_t kMaxReportBytes = uint64_t{4} << 30;
}  // namespace

bool is_inside(const fs::path& path, const fs::path& folder) {
  const auto [end, _] = std::mismatch(folder.begin(), folder.end(), path.begin(), path.end());
  return end == folder.end();
}

Result<fs::path> resolve_destination(const std::string& destination) {
  const std::string text = destination.substr(0, destination.find_last_not_of('/') + 1);
  const std::string name = fs::path(text).filename().string();
  if (name.empty() || name == "..")
    return invalid(cat("expected the name of a folder to make as DST, found ",
                       destination.empty() ? "nothing" : destination));
  for (const std::string_view ending : {".partial", ".replaced"}) {
    if (name.ends_with(ending))
      return invalid(cat("expected a name for DST that does not end with ", ending,
                         ", which marks folders that are not finished, found ", name,
                         ": choose another"));
  }
  boost::system::error_code ec;
  const fs::path path = fs::absolute(text);
  for (fs::path above = path.parent_path(); above.has_relative_path();
       above = above.parent_path()) {
    if (fs::exists(above / kMarker, ec))
      return invalid(cat("expected DST outside of unfinished work, found ", destination, " in ",
                         above.string(), ": choose another"));
  }
  // The folder above as the kernel resolves it: "link/../out" lies beside what the link leads to.
  const fs::path resolved = name == "." ? fs::weakly_canonical(path, ec)
                                        : fs::weakly_canonical(path.parent_path(), ec) / name;
  if (ec) return Error{XD_IO, cat(destination, ": ", ec.message())};
  return resolved;
}

Result<void> check_apart(const Input& source, const fs::path& destination) {
  boost::system::error_code ec;
  const fs::path resolved = fs::weakly_canonical(destination, ec);
  if (ec) return Error{XD_IO, cat(destination.string(), ": ", ec.message())};
  const auto refuse = [&](const char* how, const fs::path& what) {
    return invalid(cat("expected DST outside SRC, found ", destination.string(), how, what.string(),
                       ": choose another folder for DST"));
  };
  if (resolved == source.root()) return refuse(" to be the same as ", source.root());
  if (is_inside(resolved, source.root())) return refuse(" inside ", source.root());
  if (is_inside(source.root(), resolved)) return refuse(" to hold ", source.root());
  for (const InputEntry& entry : source.entries()) {
    if (is_inside(entry.path, resolved)) return refuse(" to hold ", entry.path);
  }
  return {};
}

Result<std::set<std::string>> listed_in_report(const fs::path& folder) {
  const std::string path = (folder / kReportName).string();
  XD_TRY_SET(const std::string text, read_small_file(path, kMaxReportBytes));
  auto report = report::from_json(text);
  if (!report) return std::move(report).error().in(path);
  std::set<std::string> names{kReportName};
  for (report::File& file : report->files) names.insert(std::move(file.path));
  return names;
}

Result<report::Report> published_report(const fs::path& folder) {
  const std::string path = (folder / kReportName).string();
  XD_TRY_SET(const std::string text, read_small_file(path, kMaxReportBytes));
  auto report = report::from_json(text);
  if (!report) return std::move(report).error().in(path);
  for (const report::File& file : report->files) {
    boost::system::error_code ec;
    const uint64_t size = fs::file_size(folder / file.path, ec);
    if (ec || size != file.size)
      return corrupt(cat("expected ", (folder / file.path).string(), " of ", file.size,
                         " bytes, found ", ec ? ec.message() : cat(size, " bytes")));
  }
  return report;
}

Result<std::set<std::string>> names_in(const fs::path& folder) {
  std::set<std::string> names;
  boost::system::error_code ec;
  fs::recursive_directory_iterator it(folder, ec);
  for (; !ec && it != fs::recursive_directory_iterator(); it.increment(ec)) {
    std::string name = it->path().lexically_relative(folder).string();
    const auto type = fs::symlink_status(it->path(), ec).type();
    if (type != fs::regular_file) name += type == fs::directory_file ? '/' : '@';
    names.insert(std::move(name));
  }
  if (ec) return Error{XD_IO, cat(folder.string(), ": ", ec.message())};
  return names;
}

Result<void> check_is_all_ours(const fs::path& folder) {
  const auto advice =
      ": it is not replaced, since something else may be lost; choose another folder, or remove it "
      "yourself";
  const auto listed = listed_in_report(folder);
  if (!listed) {
    return invalid(cat("expected ", folder.string(),
                       " to be a folder that crossdock wrote, found no readable ", kReportName,
                       " in it", advice));
  }
  XD_TRY_SET(const auto present, names_in(folder));
  for (const std::string& name : present) {
    // A folder is ours when a listed file lies under it.
    const auto at = listed->lower_bound(name);
    const bool ours = name.back() == '/'
                          ? at != listed->end() && at->compare(0, name.size(), name) == 0
                          : at != listed->end() && *at == name;
    if (!ours)
      return invalid(cat("expected only files that ", (folder / kReportName).string(),
                         " lists, found also ", name, advice));
  }
  return {};
}

}  // namespace crossdock::io
