#include "core/io/input.h"

#include "core/base/text.h"
#include "core/io/hf_cache.h"
#include "core/io/paths.h"

#include <fcntl.h>

#include <boost/filesystem/operations.hpp>

#include <algorithm>
#include <optional>

namespace crossdock::io {

namespace {

constexpr int kMaxDepth = 5;               // of folders: DeepSpeed's own checkpoints need four
constexpr size_t kMaxEntries = 2'000'000;  // a wrong SRC such as "/" ends here instead of reading a whole disk

int64_t modified_ns(const struct stat& st) { return int64_t{st.st_mtim.tv_sec} * 1'000'000'000 + st.st_mtim.tv_nsec; }

struct Lister {
  const std::optional<fs::path> repository;  // of the Hugging Face cache: links must stay inside it
  std::vector<InputEntry>& out;

  Result<void> folder(const fs::path& folder, const std::string& prefix, int depth) {
    boost::system::error_code ec;
    fs::directory_iterator it(folder, ec);
    if (ec) return Error{XD_IO, cat(folder.string(), ": ", ec.message())};
    for (; it != fs::directory_iterator(); it.increment(ec)) {
      const std::string base = it->path().filename().string();
      if (base.empty() || base[0] == '.') continue;
      // Not it->symlink_status(): newer versions of Boost follow the link as well there, and fail on a loop of links.
      const fs::file_status status = fs::symlink_status(it->path(), ec);
      if (status.type() == fs::directory_file) {
        if (depth < kMaxDepth) XD_TRY(this->folder(it->path(), prefix + base + "/", depth + 1));
      } else {
        XD_TRY(file(it->path(), prefix + base, status.type() == fs::symlink_file));
      }
      if (out.size() > kMaxEntries) {
        return invalid(cat("expected a checkpoint folder, found more than ", kMaxEntries,
                           " files in it: name the model's own folder"));
      }
      if (ec) return Error{XD_IO, cat(folder.string(), ": ", ec.message())};
    }
    if (ec) return Error{XD_IO, cat(folder.string(), ": ", ec.message())};  // a failed increment ends the loop
    return {};
  }

  Result<void> file(const fs::path& path, const std::string& name, bool is_link) {
    boost::system::error_code ec;
    fs::path target = path;
    if (is_link) {
      target = fs::canonical(path, ec);
      if (ec && repository) {
        return Error{XD_NOT_FOUND, cat("expected ", name,
                                       " to lead to a file of the Hugging Face cache, found a link to nothing: "
                                       "the download is incomplete, run `hf download` again")};
      }
      if (ec) return {};
      if (repository && !is_inside(target, *repository)) {
        return invalid(cat("expected the links of a Hugging Face snapshot to stay inside ", repository->string(),
                           ", found ", name, " leading to ", target.string(), ": download the model again"));
      }
    }
    struct stat st {};
    if (::stat(target.c_str(), &st) != 0) return os_error(path.string());
    if (!S_ISREG(st.st_mode)) return {};
    out.push_back({name, target, static_cast<uint64_t>(st.st_size), modified_ns(st)});
    return {};
  }
};

// "NAME--of-00003.gguf" of "NAME-00001-of-00003.gguf"; empty for a name of another form.
std::string without_number(std::string_view name) {
  const size_t at = name.rfind("-of-");
  if (at == std::string_view::npos || at < 6 || name[at - 6] != '-' || name.size() < at + 10) return {};
  const auto all_digits = [](std::string_view s) {
    return s.find_first_not_of("0123456789") == std::string_view::npos;
  };
  if (!all_digits(name.substr(at - 5, 5)) || !all_digits(name.substr(at + 4, 5)) || name[at + 9] != '.') return {};
  return cat(name.substr(0, at - 5), name.substr(at));
}

// The other parts of a model of which this file is one, by their names.
Result<std::vector<InputEntry>> neighbours_of(const fs::path& path) {
  std::vector<InputEntry> out;
  const std::string wanted = without_number(path.filename().string());
  if (wanted.empty()) return out;
  boost::system::error_code ec;
  const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  Lister lister{std::nullopt, out};
  for (fs::directory_iterator it(folder, ec); !ec && it != fs::directory_iterator(); it.increment(ec)) {
    const std::string name = it->path().filename().string();
    if (name == path.filename().string() || without_number(name) != wanted) continue;
    XD_TRY(lister.file(it->path(), name, fs::symlink_status(it->path(), ec).type() == fs::symlink_file));
  }
  return out;
}

}  // namespace

const InputEntry* Input::find(const std::string& name) const {
  const auto it = std::lower_bound(entries_.begin(), entries_.end(), name,
                                   [](const InputEntry& e, const std::string& n) { return e.name < n; });
  if (it != entries_.end() && it->name == name) return &*it;
  const auto near = std::find_if(neighbours_.begin(), neighbours_.end(), [&](const auto& e) { return e.name == name; });
  return near == neighbours_.end() ? nullptr : &*near;
}

Result<Fd> Input::open(Os& os, const InputEntry& entry) const {
  // O_NONBLOCK: a pipe put in the file's place must not block us; the check below refuses it.
  Fd fd(os.openat(AT_FDCWD, entry.path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0));
  if (!fd.valid()) return os_error(entry.name);
  struct stat st {};
  if (os.fstat(fd.get(), &st) != 0) return os_error(entry.name);
  if (!S_ISREG(st.st_mode)) return invalid(cat(entry.name, ": expected a regular file"));
  return fd;
}

Result<void> Input::check_unchanged(const InputEntry& entry) {
  struct stat st {};
  if (::stat(entry.path.c_str(), &st) != 0) return os_error(entry.name);
  if (static_cast<uint64_t>(st.st_size) == entry.size && modified_ns(st) == entry.modified_ns) return {};
  return corrupt(cat("expected ", entry.name,
                     " to stay as it was, found it changed while it was read: run again when nothing writes to it"));
}

Result<Input> open_input(const std::string& source) {
  Input input;
  input.given_ = source;
  boost::system::error_code ec;
  fs::path path = source;
  if (!fs::exists(path, ec)) {
    if (!is_hub_name(source)) {
      return Error{XD_NOT_FOUND,
                   cat("expected a file or folder, found nothing at ", base::printable(source), ": check the path")};
    }
    XD_TRY_SET(path, find_in_hf_cache(source));
  }
  input.root_ = fs::canonical(path, ec);
  if (ec) return Error{XD_IO, cat(source, ": ", ec.message())};

  if (!fs::is_directory(input.root_, ec)) {
    // The user named this file, so its name is what they typed, though a cache may store it under a hash.
    Lister lister{std::nullopt, input.entries_};
    XD_TRY(lister.file(input.root_, fs::path(path).filename().string(), false));
    if (input.entries_.empty())
      return invalid(cat("expected a regular file or a folder, found ", source, " to be neither"));
    XD_TRY_SET(input.neighbours_, neighbours_of(path));
    return input;
  }
  XD_TRY_SET(const auto snapshot, snapshot_of(input.root_, "main"));
  if (snapshot) input.root_ = fs::canonical(*snapshot, ec);
  Lister lister{repository_of_snapshot(input.root_), input.entries_};
  XD_TRY(lister.folder(input.root_, "", 1));
  std::sort(input.entries_.begin(), input.entries_.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  return input;
}

}  // namespace crossdock::io
