// SPDX-License-Identifier: Apache-2.0
#include "core/io/leftovers.h"

#include "core/io/paths.h"
#include "core/io/publish.h"
#include "core/io/small_file.h"
#include "core/report/report.h"

#include <fcntl.h>
#include <sys/file.h>

#include <boost/filesystem/operations.hpp>

#include <cerrno>

namespace crossdock::io {

namespace {
// Of the journal of a million files, which is much less.
constexpr uint64_t kMaxTextBytes = uint64_t{1} << 30;
}  // namespace

fs::path partial_of(const fs::path& destination) { return destination.string() + ".partial"; }

// In this order, for another process may be making it now, and the marker is what it makes first.
bool is_ours(const fs::path& folder) {
  boost::system::error_code ec;
  return fs::is_empty(folder, ec) || fs::exists(folder / kMarker, ec);
}

Error not_ours(const fs::path& partial) {
  return invalid(
      cat("expected ", partial.string(),
          " to be free for staging, found a folder that is not crossdock's there: move it away"));
}

std::vector<fs::path> being_removed(const fs::path& destination) {
  std::vector<fs::path> out;
  boost::system::error_code ec;
  const std::string beginning = destination.filename().string() + ".";
  for (fs::directory_iterator it(destination.parent_path(), ec);
       !ec && it != fs::directory_iterator(); it.increment(ec)) {
    const std::string name = it->path().filename().string();
    // Between them stands an attempt's name, which has no dots: else it is another DST's.
    const bool is_named_so =
        name.starts_with(beginning) && name.ends_with(kRemoved) &&
        name.size() > beginning.size() + sizeof kRemoved - 1 &&
        name.find('.', beginning.size()) == name.size() - (sizeof kRemoved - 1);
    if (is_named_so && fs::is_directory(it->symlink_status(ec)) &&
        (fs::exists(it->path() / kMarker, ec) || fs::is_empty(it->path(), ec)))
      out.push_back(it->path());
  }
  return out;
}

Result<void> bring_back(Os& os, const fs::path& partial, const fs::path& destination) {
  const fs::path old = partial / "parts" / "replaced";
  boost::system::error_code ec;
  if (!fs::exists(old, ec)) return {};
  if (!fs::exists(destination, ec) || fs::is_empty(destination, ec)) {
    if (os.renameat2(old.c_str(), destination.c_str(), 0) != 0)
      return os_error(cat("rename ", old.string(), " to ", destination.string()));
    return {};
  }
  // It is in the way of nothing where what replaced it is there.
  XD_TRY_SET(const std::string plan, read_text(os, partial / "parts" / "plan"));
  const auto text = read_small_file((destination / kReportName).string(), UINT32_MAX);
  const auto report = text ? report::from_json(*text) : Result<report::Report>(text.error());
  if (report && !report->plan.empty() && plan.find(cat('"', report->plan, '"')) != plan.npos)
    return {};
  return invalid(cat("expected ", destination.string(), " to be free for what was replaced, ",
                     old.string(), ", found another folder there: move one of the two away"));
}

Result<std::string> read_text(Os& os, const fs::path& path) {
  // A pipe in its place would block.
  const Fd fd(os.openat(AT_FDCWD, path.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0));
  if (!fd.valid()) return os_error(path.string());
  struct stat st {};
  if (os.fstat(fd.get(), &st) != 0) return os_error(path.string());
  if (!S_ISREG(st.st_mode) || static_cast<uint64_t>(st.st_size) > kMaxTextBytes)
    return invalid(cat("expected ", path.string(), " to be a file of at most ", kMaxTextBytes,
                       " bytes, found another: remove ",
                       path.parent_path().parent_path().string()));
  std::string text(static_cast<size_t>(st.st_size), '\0');
  if (auto r = read_exact(os, fd.get(), 0, std::as_writable_bytes(std::span(text))); !r)
    return std::move(r).error().in(path.string());
  return text;
}

void clear_leftovers(Os& os, const fs::path& destination,
                     const std::function<std::string(const std::string&)>& difference) {
  const fs::path plan = partial_of(destination) / "parts" / "plan";
  boost::system::error_code ec;
  if (fs::exists(plan, ec)) {
    const auto theirs = read_text(os, plan);
    if (!theirs || !difference(*theirs).empty()) return;
  }
  (void)clear_staging(os, destination);
}

Result<bool> clear_staging(Os& os, const fs::path& destination) {
  boost::system::error_code ec;
  std::vector<fs::path> folders = being_removed(destination);
  if (fs::is_directory(fs::symlink_status(partial_of(destination), ec)))
    folders.push_back(partial_of(destination));
  for (const fs::path& folder : folders) {
    if (!is_ours(folder)) return not_ours(folder);
    const Fd dir(
        os.openat(AT_FDCWD, folder.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0));
    if (!dir.valid()) return os_error(folder.string());
    if (os.flock(dir.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
      return Error{XD_IO, cat("expected nobody to write ", destination.string(),
                              ", found another crossdock at work in ", folder.string())};
    if (folder == partial_of(destination)) XD_TRY(bring_back(os, folder, destination));
    XD_TRY(remove_tree(folder, kMarker));
  }
  return !folders.empty();
}

}  // namespace crossdock::io
