// SPDX-License-Identifier: Apache-2.0
#include "core/io/hf_cache.h"

#include "core/io/paths.h"
#include "core/io/small_file.h"

#include <simdjson.h>

#include <boost/filesystem/operations.hpp>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <vector>

namespace crossdock::io {

namespace {

constexpr std::string_view kModelsPrefix = "models--";
constexpr size_t kMaxTreeBytes = 64 << 20;

std::string env(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

// "~/x" as Python expands it: a shell has not when the variable was set in a file of its own
// syntax.
std::string with_home(const std::string& path) {
  return path == "~" || path.starts_with("~/") ? env("HOME") + path.substr(1) : path;
}

bool is_plain(const std::string& part) {
  return !part.empty() && part != "." && part != ".." &&
         part.find_first_not_of(
             "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") ==
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

bool is_hex(const std::string& text, size_t n) {
  return text.size() == n && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}
bool is_sha256(const std::string& text) { return is_hex(text, 64); }

bool is_repository(const fs::path& folder) {
  return folder.filename().string().starts_with(kModelsPrefix);
}

std::string hub_name_of(const fs::path& repository) {
  const std::string name = repository.filename().string();
  if (!name.starts_with(kModelsPrefix)) return "ORG/NAME";
  const std::string rest = name.substr(kModelsPrefix.size());
  const size_t at = rest.find("--");
  return at == std::string::npos ? rest : rest.substr(0, at) + "/" + rest.substr(at + 2);
}

// A link below `folder` to a file of this name.
std::optional<fs::path> find_link(const fs::path& folder, const fs::path& target_name) {
  boost::system::error_code ec;
  fs::recursive_directory_iterator it(folder, ec);
  for (; !ec && it != fs::recursive_directory_iterator(); it.increment(ec)) {
    const fs::path target = fs::read_symlink(it->path(), ec);
    if (!ec && target.filename() == target_name) return it->path();
    ec.clear();  // of what is no link
  }
  return std::nullopt;
}

// {"format_version": 1, "files": {path: {"size": N, "lfs_sha256": hex, "lfs_size": N, ...}}}. The
// Hub's client ignores a list that it cannot read, and so do we: it only serves to tell more.
std::optional<CommitFiles> read_tree(const fs::path& path, const fs::path& below) {
  const auto text = read_small_file(path.string(), kMaxTreeBytes);
  if (!text) return std::nullopt;
  simdjson::dom::parser parser(kMaxTreeBytes);
  simdjson::dom::element root;
  simdjson::dom::object files;
  int64_t version = 0;
  if (parser.parse(*text).get(root) || root["format_version"].get(version) || version != 1 ||
      root["files"].get(files))
    return std::nullopt;
  CommitFiles out;
  const std::string prefix = below.empty() ? "" : below.string() + "/";
  for (const auto& [name, info] : files) {
    if (!name.starts_with(prefix)) continue;
    CommitFile file;
    if (info["size"].get(file.size)) return std::nullopt;
    std::string_view digest;
    if (!info["lfs_sha256"].get(digest) && is_sha256(std::string(digest))) {
      file.digest = cat("sha256:", digest);
      if (info["lfs_size"].get(file.size)) return std::nullopt;
    } else if (!info["blob_id"].get(digest) && is_hex(std::string(digest), 40)) {
      file.git = cat("git:", digest);
    }
    out.emplace(name.substr(prefix.size()), std::move(file));
  }
  return out;
}

// A ref is a short text file with a commit hash.
std::optional<std::string> read_ref(const fs::path& path) {
  std::ifstream in(path.string(), std::ios::binary);
  std::string text(256, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(std::max<std::streamsize>(in.gcount(), 0)));
  text.erase(std::find_if(text.begin(), text.end(),
                          [](char c) { return c == '\n' || c == '\r' || c == ' '; }),
             text.end());
  if (!is_plain(text)) return std::nullopt;
  return text;
}

}  // namespace

fs::path hf_cache_root() {
  for (const char* name : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"}) {
    if (const std::string path = env(name); !path.empty()) return with_home(path);
  }
  if (const std::string home = env("HF_HOME"); !home.empty())
    return fs::path(with_home(home)) / "hub";
  if (const std::string cache = env("XDG_CACHE_HOME"); !cache.empty())
    return fs::path(cache) / "huggingface" / "hub";
  return fs::path(env("HOME")) / ".cache" / "huggingface" / "hub";
}

bool is_hub_name(const std::string& source) {
  const std::string name = source.substr(0, source.find('@'));
  const size_t slash = name.find('/');
  return slash != std::string::npos && is_plain(name.substr(0, slash)) &&
         is_plain(name.substr(slash + 1));
}

bool is_plain_hub_name(const std::string& source) {
  const std::string name = source.substr(0, source.find('@'));
  boost::system::error_code ec;
  return is_plain(name) && fs::is_directory(hf_cache_root() / cat(kModelsPrefix, name), ec);
}

Result<std::optional<fs::path>> snapshot_of(const fs::path& folder, const std::string& revision) {
  boost::system::error_code ec;
  // There is no refs/ when every download named its commit.
  if (!fs::is_directory(folder / "snapshots", ec) ||
      !(is_repository(folder) || fs::is_directory(folder / "blobs", ec)))
    return std::optional<fs::path>();
  const std::string commit = read_ref(folder / "refs" / revision).value_or(revision);
  const fs::path snapshot = folder / "snapshots" / commit;
  if (fs::is_directory(snapshot, ec)) return std::optional(snapshot);
  std::string have;
  for (fs::directory_iterator it(folder / "snapshots", ec), end; !ec && it != end;
       it.increment(ec)) {
    have += (have.empty() ? "" : ", ") + it->path().filename().string();
  }
  return Error{
      XD_NOT_FOUND,
      cat("expected revision ", revision, " in the Hugging Face cache folder ", folder.string(),
          ", found ", have.empty() ? "none" : have, ": name one that is there, as in ",
          hub_name_of(folder), "@", have.empty() ? "REVISION" : have.substr(0, have.find(',')),
          ", or download it (hf download)")};
}

Result<fs::path> find_in_hf_cache(const std::string& hub_name) {
  const size_t at = hub_name.find('@');
  const std::string name = hub_name.substr(0, at);
  const std::string revision = at == std::string::npos ? "main" : hub_name.substr(at + 1);
  if (!is_revision(revision))
    return invalid(cat("expected a branch, tag or commit after @, found ", revision));
  std::string folder = cat(kModelsPrefix, name);
  if (const size_t slash = folder.find('/'); slash != std::string::npos)
    folder.replace(slash, 1, "--");
  const fs::path repository = hf_cache_root() / folder;
  XD_TRY_SET(auto snapshot, snapshot_of(repository, revision));
  if (snapshot) return *snapshot;
  return Error{XD_NOT_FOUND,
               cat("expected a file, a folder, or a model in the Hugging Face cache, found no ",
                   hub_name, " here and no ", repository.string(),
                   ": check the path, or run `hf download ", name, "` first")};
}

std::string Snapshot::hub_name() const { return hub_name_of(repository); }

std::optional<Snapshot> snapshot_around(const fs::path& resolved) {
  for (fs::path p = resolved; p.has_parent_path() && p != p.root_path(); p = p.parent_path()) {
    const fs::path repository = p.parent_path().parent_path();
    if (p.parent_path().filename() != "snapshots" ||
        !repository.filename().string().starts_with(kModelsPrefix))
      continue;
    const fs::path below = resolved.lexically_relative(p);
    return Snapshot{repository, p.filename().string(), below == "." ? fs::path() : below};
  }
  return std::nullopt;
}

bool is_in_cache_of(const fs::path& repository, const fs::path& resolved) {
  if (is_inside(resolved, repository)) return true;
  const std::string hash = resolved.filename().string(),
                    prefix = resolved.parent_path().filename().string();
  return is_sha256(hash) && prefix == hash.substr(0, 2) &&
         resolved.parent_path().parent_path() == repository.parent_path() / "blobs";
}

std::string digest_of_link(const fs::path& link) {
  boost::system::error_code ec;
  const fs::path target = fs::read_symlink(link, ec);
  const std::string name = target.filename().string();
  if (ec || target.parent_path().filename() != "blobs" || !is_sha256(name)) return {};
  return "sha256:" + name;
}

std::string proof_of_etag(const std::string& etag) {
  if (is_sha256(etag)) return "sha256:" + etag;
  return is_hex(etag, 40) ? "git:" + etag : "";
}

std::string proof_of_link(const fs::path& link) {
  boost::system::error_code ec;
  const fs::path target = fs::read_symlink(link, ec);
  if (ec || target.parent_path().filename() != "blobs") return {};
  return proof_of_etag(target.filename().string());
}

std::string name_of_blob(const fs::path& file) {
  const fs::path folder = file.parent_path(), repository = folder.parent_path();
  if (folder.filename() == "blobs" && is_repository(repository)) {
    const auto link = find_link(repository / "snapshots", file.filename());
    return link ? link->filename().string() : "";
  }
  // In the store of the whole cache: the blob of a repository is a link to it.
  if (repository.filename() != "blobs" || !is_sha256(file.filename().string())) return {};
  boost::system::error_code ec;
  for (fs::directory_iterator it(repository.parent_path(), ec);
       !ec && it != fs::directory_iterator(); it.increment(ec)) {
    if (!is_repository(it->path())) continue;
    const auto blob = find_link(it->path() / "blobs", file.filename());
    if (blob) return name_of_blob(*blob);
  }
  return {};
}

std::optional<CommitFiles> files_of_commit(const fs::path& resolved_folder) {
  if (const auto snapshot = snapshot_around(resolved_folder))
    return read_tree(snapshot->repository / "trees" / (snapshot->commit + ".json"),
                     snapshot->below);
  // A download to a folder of the user's keeps the list in it. With several, nothing tells which
  // one holds.
  std::vector<fs::path> found;
  boost::system::error_code ec;
  fs::directory_iterator it(resolved_folder / ".cache" / "huggingface" / "trees", ec);
  for (; !ec && it != fs::directory_iterator(); it.increment(ec)) {
    if (it->path().extension() == ".json") found.push_back(it->path());
  }
  return found.size() == 1 ? read_tree(found[0], {}) : std::nullopt;
}

}  // namespace crossdock::io
