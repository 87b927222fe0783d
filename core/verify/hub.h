// SPDX-License-Identifier: Apache-2.0

// A download of the Hugging Face Hub against what its own records say of it, offline: the list of
// the commit's files (trees/<commit>.json) and the digests that blobs are called by.
#pragma once

#include "core/verify/files.h"
#include "core/verify/verdict.h"

#include <optional>
#include <string>

namespace crossdock::verify {

struct Download {
  fs::path folder;   // a snapshot of a cache, or a folder of `hf download --local-dir`
  std::string name;  // "org/name, commit 1234567", for people
};

// `given`: org/name[@revision], a snapshot's folder or one in it, a models--org--name folder, or a
// folder of a download. Nothing when it is none of these. Errors: a name that the cache has not.
Result<std::optional<Download>> find_download(const std::string& given);

// Each file that is there must have the size and the digest that the records tell. Files of the
// commit that were never downloaded are a note, for a download may be of some files only; but
// shards that an index beside them names are a problem, and so is a link without its blob.
Result<Verdict> verify_download(const Reading& reading, const Download& download);

}  // namespace crossdock::verify
