// SPDX-License-Identifier: Apache-2.0

// What the user named as SRC, as a list of named byte objects: a file, a folder, or a model of the
// local Hugging Face cache.
//
// Names are relative and '/'-separated, sorted by bytes; nothing is opened until asked. Plugins see
// names, never paths. Only regular files count, hidden ones (".git", ".cache") do not, but for
// torch's .metadata; folders are not followed through symbolic links. Threads: immutable after
// open_input.
#pragma once

#include "core/io/hf_cache.h"
#include "core/io/os.h"

#include <boost/filesystem/path.hpp>

#include <optional>
#include <string>
#include <vector>

namespace crossdock::io {

namespace fs = boost::filesystem;

struct InputEntry {
  std::string name;
  fs::path path;  // with all links resolved
  uint64_t size = 0;
  int64_t modified_ns = 0;
  std::string digest = {};  // "sha256:<hex>" where the Hugging Face cache tells it; else empty
};

class Input {
 public:
  // Of a file named as SRC it alone; of an index of shards named as SRC ("NAME.index.json",
  // ".metadata") all files of its folder.
  const std::vector<InputEntry>& entries() const { return entries_; }
  // Also, when SRC is a file, its neighbours in the folder, which entries() does not list.
  const InputEntry* find(const std::string& name) const;
  // The name of the file that SRC names, of a blob of the Hugging Face cache that in a snapshot;
  // empty when SRC is a folder or a Hub name.
  const std::string& named() const { return named_; }
  const fs::path& root() const { return root_; }       // resolved
  const std::string& given() const { return given_; }  // as the user spelled it
  // Names of links that lead nowhere.
  const std::vector<std::string>& broken_links() const { return broken_links_; }
  // All files of the Hub's commit, where a cache tells them.
  const std::optional<CommitFiles>& commit_files() const { return commit_files_; }

  // Takes config.json, the tokenizer's and the processor's files of `source`, a folder, a file in
  // it or a Hub name as for open_input, in place of SRC's own.
  Result<void> take_config(const std::string& source);

  Result<Fd> open(Os& os, const InputEntry& entry) const;
  // An error when the Hub has the file in another size: a download that was cut off.
  Result<void> check_as_published(const InputEntry& entry) const;
  // An error when the file's size or time is no longer what it was when it was listed.
  static Result<void> check_unchanged(const InputEntry& entry);

 private:
  friend Result<Input> open_input(const std::string& source);
  Result<void> open_file(const fs::path& path);
  Result<void> open_folder();
  void take_digests_of_commit();

  std::vector<InputEntry> entries_, neighbours_;
  std::vector<std::string> broken_links_;
  std::optional<CommitFiles> commit_files_;
  fs::path root_;
  std::string given_, named_;
};

// `source`: a path; or "org/name[@revision]", looked up in the local cache of the Hugging Face Hub
// as huggingface_hub's snapshot_download leaves it.
Result<Input> open_input(const std::string& source);

}  // namespace crossdock::io
