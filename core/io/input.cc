// SPDX-License-Identifier: Apache-2.0
#include "core/io/input.h"

#include "core/base/text.h"

#include <crossdock/aux_names.hpp>
#include <crossdock/part_name.hpp>

#include <fcntl.h>

#include <boost/filesystem/operations.hpp>

#include <algorithm>
#include <optional>

namespace crossdock::io {

namespace {

constexpr int kMaxDepth = 5;  // of folders: DeepSpeed's own checkpoints need four
// The index of a distributed checkpoint of torch: the one hidden file that is part of a model.
constexpr char kDcpMetadata[] = ".metadata";
constexpr size_t kMaxEntries =
    2'000'000;  // a wrong SRC such as "/" ends here instead of reading a whole disk

int64_t modified_ns(const struct stat& st) {
  return int64_t{st.st_mtim.tv_sec} * 1'000'000'000 + st.st_mtim.tv_nsec;
}

struct Lister {
  const std::optional<fs::path>
      repository;  // of the Hugging Face cache: links must stay inside the cache
  std::vector<InputEntry>& out;
  std::vector<std::string>& broken_links;
  const bool skip_bad_links = false;  // those that lead nowhere, or out of the cache

  // `depth`: of this folder; those within it are listed down to kMaxDepth.
  Result<void> folder(const fs::path& folder, const std::string& prefix, int depth) {
    boost::system::error_code ec;
    fs::directory_iterator it(folder, ec);
    if (ec) return Error{XD_IO, cat(folder.string(), ": ", ec.message())};
    for (; it != fs::directory_iterator(); it.increment(ec)) {
      const std::string base = it->path().filename().string();
      const bool is_hidden = base.empty() || base[0] == '.';
      if (is_hidden && base != kDcpMetadata) continue;
      // Not it->symlink_status(): newer versions of Boost follow the link as well there, and fail
      // on a loop of links.
      const fs::file_status status = fs::symlink_status(it->path(), ec);
      if (status.type() == fs::directory_file) {
        if (!is_hidden && depth < kMaxDepth)
          XD_TRY(this->folder(it->path(), prefix + base + "/", depth + 1));
      } else {
        XD_TRY(file(it->path(), prefix + base, status.type() == fs::symlink_file));
      }
      if (out.size() > kMaxEntries) {
        return invalid(cat("expected a checkpoint folder, found more than ", kMaxEntries,
                           " files in it: name the model's own folder"));
      }
      if (ec) return Error{XD_IO, cat(folder.string(), ": ", ec.message())};
    }
    if (ec)
      return Error{XD_IO,
                   cat(folder.string(), ": ", ec.message())};  // a failed increment ends the loop
    return {};
  }

  Result<void> file(const fs::path& path, const std::string& name, bool is_link) {
    boost::system::error_code ec;
    fs::path target = path;
    if (is_link) {
      target = fs::canonical(path, ec);
      const bool leads_out = !ec && repository && !is_in_cache_of(*repository, target);
      if ((ec || leads_out) && skip_bad_links) return {};
      if (ec) {
        broken_links.push_back(name);
        return {};
      }
      if (leads_out) {
        return invalid(cat("expected the links of a Hugging Face snapshot to stay inside ",
                           repository->string(), " or the cache's store of shared blobs, found ",
                           name, " leading to ", target.string(), ": download the model again"));
      }
    }
    struct stat st {};
    if (::stat(target.c_str(), &st) != 0) return os_error(path.string());
    if (!S_ISREG(st.st_mode)) return {};
    out.push_back({name, target, static_cast<uint64_t>(st.st_size), modified_ns(st),
                   is_link && repository ? digest_of_link(path) : ""});
    return {};
  }
};

void sort_by_name(std::vector<InputEntry>& entries) {
  std::sort(entries.begin(), entries.end(),
            [](const auto& a, const auto& b) { return a.name < b.name; });
}

const InputEntry* find_in(const std::vector<InputEntry>& entries, const std::string& name) {
  const auto it =
      std::lower_bound(entries.begin(), entries.end(), name,
                       [](const InputEntry& e, const std::string& n) { return e.name < n; });
  return it != entries.end() && it->name == name ? &*it : nullptr;
}

std::optional<fs::path> repository_around(const fs::path& folder) {
  const auto snapshot = snapshot_around(folder);
  return snapshot ? std::optional(snapshot->repository) : std::nullopt;
}

}  // namespace

const InputEntry* Input::find(const std::string& name) const {
  const InputEntry* entry = find_in(entries_, name);
  return entry ? entry : find_in(neighbours_, name);
}

Result<void> Input::take_config(const std::string& source) {
  auto opened = open_input(source);
  if (!opened) return std::move(opened).error().in("--config");
  std::vector<InputEntry>& theirs = opened->named_.empty() ? opened->entries_ : opened->neighbours_;
  const auto is_of_model = [](const InputEntry& e) {
    const auto kind = aux_kind(e.name);
    return kind && kind != manifest::AuxKind::kTrainer;
  };
  std::erase_if(theirs, [&](const InputEntry& e) { return !is_of_model(e); });
  if (!find_in(theirs, "config.json"))
    return Error{XD_NOT_FOUND,
                 cat("--config: expected a folder with the model's config.json, found "
                     "none in ",
                     base::printable(source))};
  std::erase_if(entries_, is_of_model);
  entries_.insert(entries_.end(), theirs.begin(), theirs.end());
  sort_by_name(entries_);
  return {};
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
  if (static_cast<uint64_t>(st.st_size) == entry.size && modified_ns(st) == entry.modified_ns)
    return {};
  return corrupt(cat("expected ", entry.name,
                     " to stay as it was, found it changed while it was read: run again when "
                     "nothing writes to it"));
}

// The user named this file, so its name is what they typed, though a cache may store it under a
// hash.
Result<void> Input::open_file(const fs::path& path) {
  boost::system::error_code ec;
  named_ = path.filename().string();
  const fs::path folder =
      fs::canonical(path.has_parent_path() ? path.parent_path() : fs::path("."), ec);
  if (ec) return Error{XD_IO, cat(given_, ": ", ec.message())};
  // A blob, or a link of the user's to one, is called by anything; what it is, one part of several
  // say, its name in a snapshot tells.
  if (std::string name = snapshot_around(folder) ? "" : name_of_blob(root_); !name.empty())
    named_ = std::move(name);
  if (is_index_name(named_) || named_ == kDcpMetadata) {
    root_ = folder;
    return open_folder();
  }
  std::vector<std::string> ignored;
  // Other files of the folder are a help at most: bad links among them do not matter, nor a folder
  // that cannot be listed.
  Lister neighbours{repository_around(folder), neighbours_, ignored, /*skip_bad_links=*/true};
  if (!neighbours.folder(folder, "", kMaxDepth)) neighbours_.clear();
  sort_by_name(neighbours_);
  Lister lister{std::nullopt, entries_, ignored};
  XD_TRY(lister.file(root_, named_, false));
  if (entries_.empty())
    return invalid(cat("expected a regular file or a folder, found ", given_, " to be neither"));
  if (const InputEntry* listed = find_in(neighbours_, named_)) entries_[0].digest = listed->digest;
  return {};
}

Result<void> Input::open_folder() {
  Lister lister{repository_around(root_), entries_, broken_links_};
  XD_TRY(lister.folder(root_, "", 1));
  sort_by_name(entries_);
  std::sort(broken_links_.begin(), broken_links_.end());
  commit_files_ = files_of_commit(root_);
  take_digests_of_commit();
  return {};
}

// Of files that are no links, as in a cache on a disk without them. A folder of the user's own may
// hold changed files.
void Input::take_digests_of_commit() {
  if (!commit_files_ || !snapshot_around(root_)) return;
  for (InputEntry& entry : entries_) {
    const auto known = commit_files_->find(entry.name);
    if (entry.digest.empty() && known != commit_files_->end() && known->second.size == entry.size)
      entry.digest = known->second.digest;
  }
}

Result<void> Input::check_as_published(const InputEntry& entry) const {
  if (!commit_files_ || !snapshot_around(root_)) return {};
  const auto known = commit_files_->find(entry.name);
  if (known == commit_files_->end() || known->second.size == entry.size) return {};
  return corrupt(cat("expected ", entry.name, " of ", known->second.size,
                     " bytes, as the Hub has it, found ", entry.size,
                     ": remove it and run `hf download` again"));
}

Result<Input> open_input(const std::string& source) {
  Input input;
  input.given_ = source;
  boost::system::error_code ec;
  fs::path path = source;
  if (!fs::exists(path, ec)) {
    if (fs::is_symlink(path, ec)) {
      return Error{XD_NOT_FOUND,
                   cat("expected a file or folder, found a link that leads nowhere at ",
                       base::printable(source), ": copy or download what it led to")};
    }
    if (!is_hub_name(source) && !is_plain_hub_name(source)) {
      return Error{XD_NOT_FOUND, cat("expected a file or folder, found nothing at ",
                                     base::printable(source), ": check the path")};
    }
    XD_TRY_SET(path, find_in_hf_cache(source));
  }
  input.root_ = fs::canonical(path, ec);
  if (ec) return Error{XD_IO, cat(source, ": ", ec.message())};
  if (!fs::is_directory(input.root_, ec)) {
    XD_TRY(input.open_file(path));
    return input;
  }
  XD_TRY_SET(const auto snapshot, snapshot_of(input.root_, "main"));
  if (snapshot) input.root_ = fs::canonical(*snapshot, ec);
  XD_TRY(input.open_folder());
  return input;
}

}  // namespace crossdock::io
