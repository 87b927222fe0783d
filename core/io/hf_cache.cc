#include "core/io/hf_cache.h"

#include <boost/filesystem/operations.hpp>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <vector>

namespace crossdock::io {

namespace {

std::string env(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

bool is_plain(const std::string& part) {
  return !part.empty() && part != "." && part != ".." &&
         part.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") ==
             std::string::npos;
}

// "main", a commit, "refs/pr/3": a branch's name may have slashes.
bool is_revision(const std::string& text) {
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find('/', begin), text.size());
    if (!is_plain(text.substr(begin, end - begin))) return false;
    begin = end + 1;
  }
  return true;
}

// A ref is a short text file with a commit hash.
std::optional<std::string> read_ref(const fs::path& path) {
  std::ifstream in(path.string(), std::ios::binary);
  std::string text(256, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(std::max<std::streamsize>(in.gcount(), 0)));
  text.erase(std::find_if(text.begin(), text.end(), [](char c) { return c == '\n' || c == '\r' || c == ' '; }),
             text.end());
  if (!is_plain(text)) return std::nullopt;
  return text;
}

}  // namespace

fs::path hf_cache_root() {
  for (const char* name : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"}) {
    if (const std::string path = env(name); !path.empty()) return path;
  }
  if (const std::string home = env("HF_HOME"); !home.empty()) return fs::path(home) / "hub";
  if (const std::string cache = env("XDG_CACHE_HOME"); !cache.empty()) return fs::path(cache) / "huggingface" / "hub";
  return fs::path(env("HOME")) / ".cache" / "huggingface" / "hub";
}

bool is_hub_name(const std::string& source) {
  const std::string name = source.substr(0, source.find('@'));
  const size_t slash = name.find('/');
  return slash != std::string::npos && is_plain(name.substr(0, slash)) && is_plain(name.substr(slash + 1));
}

Result<std::optional<fs::path>> snapshot_of(const fs::path& folder, const std::string& revision) {
  boost::system::error_code ec;
  // There is no refs/ when every download named its commit.
  if (!fs::is_directory(folder / "snapshots", ec) || !fs::is_directory(folder / "blobs", ec))
    return std::optional<fs::path>();
  const std::string commit = read_ref(folder / "refs" / revision).value_or(revision);
  const fs::path snapshot = folder / "snapshots" / commit;
  if (fs::is_directory(snapshot, ec)) return std::optional(snapshot);
  std::string have;
  for (fs::directory_iterator it(folder / "snapshots", ec), end; !ec && it != end; it.increment(ec)) {
    have += (have.empty() ? "" : ", ") + it->path().filename().string();
  }
  return Error{XD_NOT_FOUND,
               cat("expected revision ", revision, " in the Hugging Face cache folder ", folder.string(), ", found ",
                   have.empty() ? "none" : have, ": download it (hf download), or name the folder of a snapshot")};
}

Result<fs::path> find_in_hf_cache(const std::string& hub_name) {
  const size_t at = hub_name.find('@');
  const std::string name = hub_name.substr(0, at);
  const std::string revision = at == std::string::npos ? "main" : hub_name.substr(at + 1);
  if (!is_revision(revision)) return invalid(cat("expected a branch, tag or commit after @, found ", revision));
  std::string folder = "models--" + name;
  folder.replace(folder.find('/'), 1, "--");
  const fs::path repository = hf_cache_root() / folder;
  XD_TRY_SET(auto snapshot, snapshot_of(repository, revision));
  if (snapshot) return *snapshot;
  return Error{XD_NOT_FOUND,
               cat("expected a file, a folder, or a model in the Hugging Face cache, found no ", hub_name,
                   " here and no ", repository.string(), ": check the path, or run `hf download ", name, "` first")};
}

std::optional<fs::path> repository_of_snapshot(const fs::path& resolved) {
  for (fs::path p = resolved; p.has_parent_path() && p != p.root_path(); p = p.parent_path()) {
    if (p.parent_path().filename() == "snapshots" &&
        p.parent_path().parent_path().filename().string().rfind("models--", 0) == 0) {
      return p.parent_path().parent_path();
    }
  }
  return std::nullopt;
}

std::string digest_of_blob(const fs::path& resolved) {
  const std::string name = resolved.filename().string();
  const bool is_digest = name.size() == 64 && name.find_first_not_of("0123456789abcdef") == std::string::npos;
  const fs::path folder = resolved.parent_path();
  if (!is_digest || folder.filename() != "blobs" || !folder.parent_path().filename().string().starts_with("models--"))
    return {};
  return "sha256:" + name;
}

}  // namespace crossdock::io
