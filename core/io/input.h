// What the user named as SRC, as a list of named byte objects: a file, a folder, or a model of the local Hugging Face
// cache.
//
// Names are relative and '/'-separated, sorted by bytes; nothing is opened until asked. Plugins see names, never paths.
// Only regular files count, hidden ones (".git", ".cache") do not; folders are not followed through symbolic links.
// Threads: immutable after open_input.
#pragma once

#include "core/io/os.h"

#include <boost/filesystem/path.hpp>

#include <string>
#include <vector>

namespace crossdock::io {

namespace fs = boost::filesystem;

struct InputEntry {
  std::string name;
  fs::path path;  // with all links resolved
  uint64_t size = 0;
  int64_t modified_ns = 0;
};

class Input {
 public:
  const std::vector<InputEntry>& entries() const { return entries_; }
  // Also, when SRC is one part of several (NAME-00001-of-00003.x), its neighbours, which entries() does not list.
  const InputEntry* find(const std::string& name) const;
  const fs::path& root() const { return root_; }       // resolved
  const std::string& given() const { return given_; }  // as the user spelled it

  Result<Fd> open(Os& os, const InputEntry& entry) const;
  // An error when the file's size or time is no longer what it was when it was listed.
  static Result<void> check_unchanged(const InputEntry& entry);

 private:
  friend Result<Input> open_input(const std::string& source);
  std::vector<InputEntry> entries_, neighbours_;
  fs::path root_;
  std::string given_;
};

// `source`: a path; or "org/name[@revision]", looked up in the local cache of the Hugging Face Hub as
// huggingface_hub's snapshot_download leaves it.
Result<Input> open_input(const std::string& source);

}  // namespace crossdock::io
