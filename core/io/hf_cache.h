// SPDX-License-Identifier: Apache-2.0

// The local cache of the Hugging Face Hub: where snapshot_download left a model. Never the network.
//
// Layout (huggingface_hub 2.4, "Understand caching", utils/_shared_blobs.py, _tree_cache.py):
//
//   CACHE/models--org--name/refs/<revision>                     the commit that the revision stood
//   for
//                           snapshots/<commit>/file             -> ../../blobs/<etag>; or the file,
//                           where links are off blobs/<etag>                        the file; or ->
//                           ../../blobs/<2 hex>/<xet hash> trees/<commit>.json every file of the
//                           commit, downloaded or not
//   CACHE/blobs/<2 hex>/<xet hash>                              files of all repositories of the
//   cache, each once
//
// An etag is the SHA-256 of a large file (LFS), and git's SHA-1 of a small one; a Xet hash is
// neither.
#pragma once

#include <crossdock/result.hpp>

#include <boost/filesystem/path.hpp>

#include <map>
#include <optional>
#include <string>

namespace crossdock::io {

namespace fs = boost::filesystem;

// HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE, HF_HOME/hub, XDG_CACHE_HOME/huggingface/hub or
// ~/.cache/huggingface/hub.
fs::path hf_cache_root();

// Whether `source` is spelled as a Hub name: "org/name" or "org/name@revision".
bool is_hub_name(const std::string& source);

// Whether it is the name of a model without an organisation, "gpt2", that the cache has.
bool is_plain_hub_name(const std::string& source);

// The snapshot folder of a Hub name in the cache.
Result<fs::path> find_in_hf_cache(const std::string& hub_name);

// The snapshot folder when `folder` is a models--org--name folder of a cache; nothing when it is
// not one.
Result<std::optional<fs::path>> snapshot_of(const fs::path& folder, const std::string& revision);

// Where a folder lies in the cache.
struct Snapshot {
  fs::path repository;  // CACHE/models--org--name
  std::string commit;
  fs::path below;  // from the snapshot to the folder; empty: the snapshot itself
  // "org/name", for messages.
  std::string hub_name() const;
};
std::optional<Snapshot> snapshot_around(const fs::path& resolved);

// Whether links of a snapshot may lead to this file: one of its repository, or of the cache's store
// of shared blobs.
bool is_in_cache_of(const fs::path& repository, const fs::path& resolved);

// "sha256:<hex>" when a file of a snapshot is a link to a blob that is called by its digest, as
// large files are; else empty. The link itself tells: what it leads to in the end may be called by
// another hash.
std::string digest_of_link(const fs::path& link);

// The same, or "git:<hex>" of a small file: all that its blob's name proves.
std::string proof_of_link(const fs::path& link);

// What an etag proves: "sha256:<hex>", "git:<hex>"; empty: nothing.
std::string proof_of_etag(const std::string& etag);

// The name that a snapshot has for a blob of its repository; empty when the file is none, or no
// snapshot has it.
std::string name_of_blob(const fs::path& file);

// What the cache knows of a commit's file, whether it was downloaded or not.
struct CommitFile {
  uint64_t size = 0;
  std::string digest;  // "sha256:<hex>" of a large file; else empty
  std::string git;     // "git:<hex>" of a small one (git_blob.h); else empty
};
using CommitFiles = std::map<std::string, CommitFile>;  // by path

// All files of the folder's commit, by their paths below the folder: from trees/<commit>.json of
// the cache, or of a folder that was downloaded by `hf download --local-dir`. Nothing when that is
// not there or cannot be read.
std::optional<CommitFiles> files_of_commit(const fs::path& resolved_folder);

}  // namespace crossdock::io
