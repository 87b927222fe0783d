// SPDX-License-Identifier: Apache-2.0
#include "core/verify/hub.h"

#include "core/base/text.h"
#include "core/io/hf_cache.h"
#include "core/io/paths.h"

#include <crossdock/part_name.hpp>

#include <simdjson.h>

#include <boost/filesystem/operations.hpp>

#include <algorithm>
#include <array>
#include <set>
#include <sstream>

namespace crossdock::verify {

namespace {

constexpr uint64_t kMaxIndexBytes = 256 << 20;
constexpr char kLocalRecords[] = ".cache/huggingface";

// The names of what was downloaded, without what the Hub's client keeps for itself.
Result<std::set<std::string>> names_of(const fs::path& folder) {
  XD_TRY_SET(const auto all, io::names_in(folder));
  std::set<std::string> out;
  for (std::string name : all) {
    if (name.ends_with('/') || name.starts_with(".cache/")) continue;
    if (name.ends_with('@')) name.pop_back();  // a link
    out.insert(std::move(name));
  }
  return out;
}

// What `hf download --local-dir` puts down of a file: commit, etag and time, a line each.
std::string proof_of_record(io::Os& os, const fs::path& folder, const std::string& name) {
  const auto text =
      read_file(os, folder / kLocalRecords / "download" / (name + ".metadata"), 64 << 10);
  if (!text) return {};
  std::istringstream lines(*text);
  std::string commit, etag;
  std::getline(lines, commit);
  std::getline(lines, etag);
  return io::proof_of_etag(etag);
}

class Check {
 public:
  Check(const Reading& reading, const fs::path& folder, Findings& findings)
      : reading_(reading),
        folder_(folder),
        commit_(io::files_of_commit(folder)),
        findings_(findings) {}

  Result<void> run() {
    XD_TRY_SET(present_, names_of(folder_));
    std::vector<ExpectedFile> files;
    for (const std::string& name : present_) {
      if (has_content(name)) files.push_back(expected(name));
    }
    n_files_ = files.size();
    note_unproved(files);
    note_absent();
    XD_TRY(check_files(reading_, files, findings_));
    check_indexes();
    note_unfinished();
    return {};
  }

  uint64_t n_files() const { return n_files_; }
  uint64_t n_bytes() const { return n_bytes_; }

 private:
  bool has_content(const std::string& name) {
    boost::system::error_code ec;
    if (fs::exists(folder_ / name, ec)) return leads_into_the_cache(name);
    findings_.problem(cat(base::printable(name),
                          ": expected its blob in the cache, found a link that leads nowhere: "
                          "download it again"));
    return false;
  }

  bool leads_into_the_cache(const std::string& name) {
    boost::system::error_code ec;
    const auto snapshot = io::snapshot_around(folder_);
    const fs::path resolved = fs::canonical(folder_ / name, ec);
    if (!snapshot || ec || io::is_in_cache_of(snapshot->repository, resolved)) return true;
    findings_.problem(cat(base::printable(name), ": expected a file of the cache, found a link to ",
                          resolved.string()));
    return false;
  }

  static bool is_weights(const std::string& name) {
    constexpr std::array<std::string_view, 5> kEndings{".safetensors", ".bin", ".gguf", ".pt",
                                                       ".pth"};
    return std::any_of(kEndings.begin(), kEndings.end(),
                       [&name](std::string_view ending) { return name.ends_with(ending); });
  }

  ExpectedFile expected(const std::string& name) {
    const fs::path path = folder_ / name;
    boost::system::error_code ec;
    const uint64_t size = fs::file_size(path, ec);
    if (!ec) n_bytes_ += size;
    ExpectedFile out{name, path, std::nullopt, io::proof_of_link(path)};
    if (out.digest.empty()) out.digest = proof_of_record(reading_.os, folder_, name);
    const auto known = commit_ ? commit_->find(name) : io::CommitFiles::const_iterator();
    if (!commit_ || known == commit_->end()) return out;
    out.size = known->second.size;
    // What the commit itself tells counts more than what a blob is called.
    const std::string& digest =
        known->second.digest.empty() ? known->second.git : known->second.digest;
    if (!digest.empty()) out.digest = digest;
    return out;
  }

  void note_unproved(const std::vector<ExpectedFile>& files) {
    std::vector<std::string> names;
    for (const ExpectedFile& file : files) {
      if (!file.digest.empty()) continue;
      if (is_weights(file.name)) {
        findings_.problem(cat(base::printable(file.name),
                              ": expected a record of its digest, found none: whether it is whole "
                              "cannot be told; download it again"));
      } else {
        names.push_back(file.name);
      }
    }
    if (!names.empty())
      findings_.note(cat("No record tells a digest of ", base::listed(names),
                         commit_ ? "." : ", nor their sizes."));
  }

  void note_absent() {
    if (!commit_) {
      findings_.note(
          "There is no list of the commit's files (trees/, of huggingface_hub 2), so nobody can "
          "tell whether all were downloaded.");
      return;
    }
    std::vector<std::string> absent, foreign;
    for (const auto& [name, file] : *commit_) {
      if (!present_.contains(name)) absent.push_back(name);
    }
    for (const std::string& name : present_) {
      if (!commit_->contains(name)) foreign.push_back(name);
    }
    findings_.note(absent.empty()
                       ? cat("complete: all ", commit_->size(), " files of the commit are there.")
                       : cat(commit_->size() - absent.size(), " of ", commit_->size(),
                             " files of the commit are there; not downloaded: ",
                             base::listed(absent, 10), "."));
    if (!foreign.empty())
      findings_.note(cat("Not of the commit: ", base::listed(foreign, 10), "."));
  }

  // The shards of an index that is there belong to it: without one the model is not whole.
  void check_indexes() {
    for (const std::string& name : present_) {
      if (!is_index_name(name)) continue;
      const auto text = read_file(reading_.os, folder_ / name, kMaxIndexBytes);
      if (!text) {
        findings_.problem(text.error().message);
        continue;
      }
      simdjson::dom::parser parser(kMaxIndexBytes);
      simdjson::dom::object map;
      if (parser.parse(*text)["weight_map"].get(map)) {
        findings_.note(cat(base::printable(name), " is no index of shards that can be read."));
        continue;
      }
      check_shards(name, map);
    }
  }

  void check_shards(const std::string& index, simdjson::dom::object map) {
    const size_t slash = index.rfind('/');
    const std::string prefix = slash == index.npos ? "" : index.substr(0, slash + 1);
    std::set<std::string> shards;
    for (const auto field : map) {
      std::string_view shard;
      if (!field.value.get(shard)) shards.insert(prefix + std::string(shard));
    }
    std::vector<std::string> absent;
    for (const std::string& shard : shards) {
      if (!present_.contains(shard)) absent.push_back(shard);
    }
    if (!absent.empty())
      findings_.problem(cat(base::printable(index), ": expected its ", shards.size(),
                            " shards beside it, found that ", absent.size(),
                            absent.size() == 1 ? " is" : " are",
                            " missing: ", base::listed(absent, 10), ": run `hf download` again"));
  }

  void note_unfinished() {
    const auto snapshot = io::snapshot_around(folder_);
    const fs::path parts =
        snapshot ? snapshot->repository / "blobs" : folder_ / kLocalRecords / "download";
    size_t n = 0;
    boost::system::error_code ec;
    for (fs::recursive_directory_iterator it(parts, ec), end; !ec && it != end; it.increment(ec))
      n += it->path().extension() == ".incomplete" ? 1 : 0;
    if (n > 0)
      findings_.note(cat(n, n == 1 ? " download was" : " downloads were", " cut off (",
                         parts.string(), "/*.incomplete): `hf download` goes on with them."));
  }

  const Reading& reading_;
  const fs::path folder_;
  const std::optional<io::CommitFiles> commit_;
  Findings& findings_;
  std::set<std::string> present_;
  uint64_t n_files_ = 0, n_bytes_ = 0;
};

}  // namespace

Result<std::optional<Download>> find_download(const std::string& given) {
  boost::system::error_code ec;
  fs::path folder = given;
  if (!fs::exists(folder, ec)) {
    if (!io::is_hub_name(given) && !io::is_plain_hub_name(given)) return std::optional<Download>();
    XD_TRY_SET(folder, io::find_in_hf_cache(given));
  }
  folder = fs::canonical(folder, ec);
  if (ec || !fs::is_directory(folder, ec)) return std::optional<Download>();
  XD_TRY_SET(const auto inside, io::snapshot_of(folder, "main"));
  if (inside) folder = fs::canonical(*inside, ec);
  if (const auto snapshot = io::snapshot_around(folder))
    return std::optional<Download>(
        {folder, cat(snapshot->hub_name(), snapshot->below.empty() ? "" : "/",
                     snapshot->below.string(), ", commit ", snapshot->commit)});
  if (fs::is_directory(folder / kLocalRecords, ec))
    return std::optional<Download>({folder, folder.string()});
  return std::optional<Download>();
}

Result<Verdict> verify_download(const Reading& reading, const Download& download) {
  Findings findings;
  Check check(reading, download.folder, findings);
  XD_TRY(check.run());
  Verdict out = findings.verdict();
  out.n_files = check.n_files();
  out.n_bytes = check.n_bytes();
  return out;
}

}  // namespace crossdock::verify
