// The local cache of the Hugging Face Hub: where snapshot_download left a model. Never the network.
//
// Layout (huggingface_hub, "Understand caching"): CACHE/models--org--name/{blobs/<hash>, refs/<revision>,
// snapshots/<commit>/file -> ../../blobs/<hash>}. refs/main holds the commit that main stood for.
#pragma once

#include <crossdock/result.hpp>

#include <boost/filesystem/path.hpp>

#include <optional>
#include <string>

namespace crossdock::io {

namespace fs = boost::filesystem;

// HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE, HF_HOME/hub, XDG_CACHE_HOME/huggingface/hub or ~/.cache/huggingface/hub.
fs::path hf_cache_root();

// Whether `source` is spelled as a Hub name: "org/name" or "org/name@revision".
bool is_hub_name(const std::string& source);

// The snapshot folder of a Hub name in the cache.
Result<fs::path> find_in_hf_cache(const std::string& hub_name);

// The snapshot folder when `folder` is a models--org--name folder of a cache; nothing when it is not one.
Result<std::optional<fs::path>> snapshot_of(const fs::path& folder, const std::string& revision);

// The models--org--name folder that a snapshot folder belongs to, whose links may leave the snapshot but not this
// folder.
std::optional<fs::path> repository_of_snapshot(const fs::path& resolved);

// "sha256:<hex>" of a file whose name in the cache's blobs is its digest, as large files have it; empty for others.
std::string digest_of_blob(const fs::path& resolved);

}  // namespace crossdock::io
