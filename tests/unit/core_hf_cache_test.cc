// SPDX-License-Identifier: Apache-2.0
#include "core/io/hf_cache.h"

#include <sys/stat.h>

#include <cstdlib>

#include "tests/unit/core_test_support.h"

using namespace crossdock::io;
using namespace crossdock::test;

namespace {

// The cache's variables as one test wants them, and as they were after it.
class Environment {
 public:
  Environment(std::initializer_list<std::pair<const char*, std::string>> values) {
    for (const char* name :
         {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HOME"}) {
      const char* old = std::getenv(name);
      before_.emplace_back(name, old ? std::optional<std::string>(old) : std::nullopt);
      unsetenv(name);
    }
    for (const auto& [name, value] : values) setenv(name, value.c_str(), 1);
  }
  ~Environment() {
    for (const auto& [name, value] : before_)
      value ? setenv(name, value->c_str(), 1) : unsetenv(name);
  }

 private:
  std::vector<std::pair<const char*, std::optional<std::string>>> before_;
};

// CACHE/models--org--name with one snapshot of `commit`, to which refs/`ref` leads.
void make_repository(const fs::path& cache, const std::string& commit, const std::string& ref) {
  const fs::path repository = cache / "models--org--name";
  put(repository / "blobs" / "0123", "weights");
  put(repository / "refs" / ref, commit);
  fs::create_directories(repository / "snapshots" / commit);
  fs::create_symlink("../../blobs/0123", repository / "snapshots" / commit / "model.safetensors");
}

}  // namespace

TEST_CASE("the cache lies where huggingface_hub looks, in its order") {
  {
    const Environment e{
        {"HF_HUB_CACHE", "/a"}, {"HUGGINGFACE_HUB_CACHE", "/b"}, {"HF_HOME", "/c"}, {"HOME", "/d"}};
    CHECK(hf_cache_root() == "/a");
  }
  {
    const Environment e{{"HUGGINGFACE_HUB_CACHE", "/b"}, {"HF_HOME", "/c"}, {"HOME", "/d"}};
    CHECK(hf_cache_root() == "/b");
  }
  {
    const Environment e{
        {"HF_HUB_CACHE", ""}, {"HF_HOME", "/c"}, {"XDG_CACHE_HOME", "/x"}, {"HOME", "/d"}};
    CHECK(hf_cache_root() == "/c/hub");  // an empty variable is as none
  }
  {
    const Environment e{{"XDG_CACHE_HOME", "/x"}, {"HOME", "/d"}};
    CHECK(hf_cache_root() == "/x/huggingface/hub");
  }
  {
    const Environment e{{"HF_HOME", "~/c"}, {"HOME", "/d"}};
    CHECK(hf_cache_root() == "/d/c/hub");
  }
  const Environment e{{"HOME", "/d"}};
  CHECK(hf_cache_root() == "/d/.cache/huggingface/hub");
}

TEST_CASE("a Hub name is org/name, perhaps with a revision") {
  for (const char* text :
       {"org/name", "meta-llama/Llama-3.2_1B", "org/name@main", "o/n@0123abcd"}) {
    INFO(text);
    CHECK(is_hub_name(text));
  }
  for (const char* text : {"", "name", "/name", "org/", "a/b/c", "../name", "org/..", "./x",
                           "org/na me", "org/n\xC3\xA9", "@main"}) {
    INFO(text);
    CHECK_FALSE(is_hub_name(text));
  }
}

TEST_CASE("a model is found by its name, at main or another revision") {
  const TempDir cache;
  const Environment e{{"HF_HUB_CACHE", cache.path().string()}};
  make_repository(cache.path(), "c0ffee", "main");
  make_repository(cache.path(), "decade", "v1.0");
  const fs::path snapshots = cache / "models--org--name/snapshots";
  CHECK(*find_in_hf_cache("org/name") == snapshots / "c0ffee");
  CHECK(*find_in_hf_cache("org/name@main") == snapshots / "c0ffee");
  CHECK(*find_in_hf_cache("org/name@v1.0") == snapshots / "decade");
  CHECK(*find_in_hf_cache("org/name@decade") == snapshots / "decade");  // a commit itself
  put(cache / "models--org--name/refs/refs/pr/3", "decade");
  CHECK(*find_in_hf_cache("org/name@refs/pr/3") == snapshots / "decade");
  CHECK_FALSE(find_in_hf_cache("org/name@../../x"));
  fs::remove_all(cache / "models--org--name/refs");  // as when every download named its commit
  CHECK(*find_in_hf_cache("org/name@decade") == snapshots / "decade");
}

TEST_CASE("a ref may end in a newline") {
  const TempDir cache;
  make_repository(cache.path(), "c0ffee", "main");
  put(cache / "models--org--name/refs/main", "c0ffee\n");
  CHECK(**snapshot_of(cache / "models--org--name", "main") ==
        cache / "models--org--name/snapshots/c0ffee");
}

TEST_CASE("what is not in the cache is refused with what to do") {
  const TempDir cache;
  const Environment e{{"HF_HUB_CACHE", cache.path().string()}};
  const std::string none = message(find_in_hf_cache("org/name"));
  CHECK(contains(none, "found no org/name here and no " + (cache / "models--org--name").string()));
  CHECK(contains(none, "hf download org/name"));

  make_repository(cache.path(), "c0ffee", "main");
  const std::string revision = message(find_in_hf_cache("org/name@v2"));
  CHECK(contains(revision, "expected revision v2"));
  CHECK(contains(revision, "found c0ffee"));
  CHECK(
      contains(message(find_in_hf_cache("org/name@../../x")), "expected a branch, tag or commit"));
  CHECK(contains(message(find_in_hf_cache("org/name@")), "expected a branch, tag or commit"));
}

TEST_CASE("a ref cannot lead out of the snapshots") {
  const TempDir cache;
  make_repository(cache.path(), "c0ffee", "main");
  for (const char* text : {"../../..", "..", ".", "", "/etc", "a/b"}) {
    INFO(text);
    put(cache / "models--org--name/refs/main", text);
    CHECK(contains(message(snapshot_of(cache / "models--org--name", "main")),
                   "expected revision main"));
  }
}

TEST_CASE("an ordinary folder is not a repository of the cache") {
  const TempDir dir;
  put(dir / "model.safetensors");
  const auto none = snapshot_of(dir.path(), "main");
  REQUIRE(none);
  CHECK_FALSE(*none);
}

TEST_CASE("the digest of a large file is the name of the blob that its link names") {
  const TempDir dir;
  const std::string hex(64, 'a');
  const auto digest = [&](const std::string& target) {
    fs::remove(dir / "link");
    fs::create_symlink(target, dir / "link");
    return digest_of_link(dir / "link");
  };
  CHECK(digest("../../blobs/" + hex) == "sha256:" + hex);
  CHECK(digest("/c/models--o--n/blobs/" + hex) == "sha256:" + hex);
  CHECK(digest("../../blobs/" + hex.substr(24)).empty());  // a git hash
  CHECK(digest("../../blobs/" + hex.substr(1) + "g").empty());
  CHECK(digest("../../blobs/aa/" + hex)
            .empty());  // the store of shared blobs, whose names are other hashes
  CHECK(digest("../" + hex).empty());
  put(dir / "file");
  CHECK(digest_of_link(dir / "file").empty());
}

TEST_CASE("where a folder lies in the cache") {
  const auto snapshot = snapshot_around("/c/models--o--n/snapshots/abc");
  REQUIRE(snapshot);
  CHECK(snapshot->repository == "/c/models--o--n");
  CHECK(snapshot->commit == "abc");
  CHECK(snapshot->below.empty());
  CHECK(snapshot->hub_name() == "o/n");
  CHECK(snapshot_around("/c/models--o--n/snapshots/abc/sub/dir")->below == "sub/dir");
  CHECK_FALSE(snapshot_around("/c/models--o--n/blobs"));
  CHECK_FALSE(snapshot_around("/c/other/snapshots/abc"));
  CHECK_FALSE(snapshot_around("/"));
}

TEST_CASE("links of a snapshot may lead to its repository, or to the cache's shared blobs") {
  const std::string hash = "ab" + std::string(62, '0');
  const auto allowed = [](const std::string& target) {
    return is_in_cache_of("/c/models--o--n", target);
  };
  CHECK(allowed("/c/models--o--n/blobs/x"));
  CHECK(allowed("/c/blobs/ab/" + hash));
  CHECK_FALSE(allowed("/c/blobs/cd/" + hash));  // not the folder of its hash
  CHECK_FALSE(allowed("/c/blobs/" + hash));
  CHECK_FALSE(allowed("/c/blobs/ab/" + hash.substr(1)));
  CHECK_FALSE(allowed("/c/blobs/ab/" + hash + ".refs"));
  CHECK_FALSE(allowed("/c/models--o--other/blobs/x"));
  CHECK_FALSE(allowed("/other/blobs/ab/" + hash));
}

TEST_CASE("the files of a commit, downloaded or not") {
  const TempDir cache;
  const fs::path repository = cache / "models--o--n", snapshot = repository / "snapshots/abc";
  fs::create_directories(snapshot / "sub");
  CHECK_FALSE(files_of_commit(snapshot));
  const std::string hex(64, 'a');
  const std::string tree = R"({"format_version": 1, "files": {
    "config.json": {"size": 12, "blob_id": "00"},
    "sub/model.safetensors": {"size": 130, "blob_id": "00", "lfs_sha256": ")" +
                           hex + R"(", "lfs_size": 5000000000, "xet_hash": "00"}}})";
  put(repository / "trees/abc.json", tree);
  const auto all = files_of_commit(snapshot);
  REQUIRE(all);
  REQUIRE(all->size() == 2);
  CHECK(all->at("config.json").size == 12);
  CHECK(all->at("config.json").digest.empty());
  CHECK(all->at("sub/model.safetensors").size == 5000000000);
  CHECK(all->at("sub/model.safetensors").digest == "sha256:" + hex);
  const auto below = files_of_commit(snapshot / "sub");
  REQUIRE(below);
  CHECK(below->size() == 1);
  CHECK(below->count("model.safetensors") == 1);
  for (const char* text :
       {"", "{", "[]", R"({"format_version": 2, "files": {}})", R"({"format_version": 1})",
        R"({"format_version": 1, "files": {"a": {"size": "x"}}})"}) {
    INFO(text);
    put(repository / "trees/abc.json", text);
    CHECK_FALSE(files_of_commit(snapshot));
  }
}

TEST_CASE("a list that is a pipe is not waited for") {
  const TempDir dir;
  fs::create_directories(dir / ".cache/huggingface/trees");
  REQUIRE(mkfifo((dir / ".cache/huggingface/trees/abc.json").c_str(), 0600) == 0);
  CHECK_FALSE(files_of_commit(dir.path()));
}

TEST_CASE("names without an organisation, when the cache has them") {
  const TempDir cache;
  const Environment e{{"HF_HUB_CACHE", cache.path().string()}};
  CHECK_FALSE(is_plain_hub_name("gpt2"));
  put(cache / "models--gpt2/refs/main", "c0ffee");
  fs::create_directories(cache / "models--gpt2/snapshots/c0ffee");
  CHECK(is_plain_hub_name("gpt2"));
  CHECK(*find_in_hf_cache("gpt2") == cache / "models--gpt2/snapshots/c0ffee");
  CHECK_FALSE(is_plain_hub_name(".."));
}

TEST_CASE("a download to a folder of the user's keeps its list there") {
  const TempDir dir;
  const std::string tree = R"({"format_version": 1, "files": {"a": {"size": 1, "blob_id": "00"}}})";
  put(dir / ".cache/huggingface/trees/abc.json", tree);
  REQUIRE(files_of_commit(dir.path()));
  put(dir / ".cache/huggingface/trees/def.json", tree);
  CHECK_FALSE(files_of_commit(dir.path()));  // which of the two holds, nothing tells
}
