// SPDX-License-Identifier: Apache-2.0
#include "core/io/input.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>

#include "tests/unit/core_test_support.h"

using namespace crossdock::io;
using namespace crossdock::test;
using crossdock::Error;

namespace {

std::vector<std::string> listed(const fs::path& source) {
  const auto input = open_input(source.string());
  INFO((input ? "" : input.error().message));
  REQUIRE(input);
  std::vector<std::string> out;
  for (const InputEntry& entry : input->entries()) out.push_back(entry.name);
  return out;
}
std::string refusal(const fs::path& source) { return message(open_input(source.string())); }

using Names = std::vector<std::string>;

// models--org--name as snapshot_download leaves it; gives the snapshot's folder.
fs::path make_snapshot(const fs::path& cache) {
  const fs::path repository = cache / "models--org--name";
  put(repository / "blobs" / "aa", "weights");
  put(repository / "blobs" / "bb", "{}");
  put(repository / "refs" / "main", "c0ffee");
  const fs::path snapshot = repository / "snapshots" / "c0ffee";
  fs::create_directories(snapshot);
  fs::create_symlink("../../blobs/aa", snapshot / "model.safetensors");
  fs::create_symlink("../../blobs/bb", snapshot / "config.json");
  return snapshot;
}

}  // namespace

TEST_CASE("a folder gives its files, sorted by bytes, folders within it too") {
  const TempDir dir;
  for (const char* name : {"b", "a/z", "a-x", "B", "a/b/c"}) put(dir / name, name);
  fs::create_directory(dir / "empty");
  CHECK(listed(dir.path()) == Names{"B", "a-x", "a/b/c", "a/z", "b"});
  const auto input = open_input(dir.path().string());
  REQUIRE(input->find("a/b/c"));
  CHECK(input->find("a/b/c")->size == 5);
  CHECK(input->find("a/b") == nullptr);
  CHECK(input->find("zz") == nullptr);
  CHECK(input->root() == dir.path());
}

TEST_CASE("hidden files and folders do not count") {
  const TempDir dir;
  put(dir / "model");
  put(dir / ".hidden");
  put(dir / ".cache/huggingface/model.lock");
  CHECK(listed(dir.path()) == Names{"model"});
}

TEST_CASE("torch's .metadata is the one hidden file that counts") {
  const TempDir dir;
  put(dir / "__0_0.distcp");
  put(dir / ".metadata");
  put(dir / "x/.metadata");
  put(dir / ".git/.metadata");
  put(dir / "y/.metadata/z");
  CHECK(listed(dir.path()) == Names{".metadata", "__0_0.distcp", "x/.metadata"});
  const auto named = open_input((dir / ".metadata").string());
  REQUIRE(named);
  CHECK(named->named() == ".metadata");
  CHECK(named->find("__0_0.distcp"));
}

TEST_CASE(
    "only regular files count: no pipe blocks, no folder link is followed, a dangling link is no "
    "file") {
  const TempDir dir, other;
  put(dir / "model");
  put(other / "far");
  REQUIRE(mkfifo((dir / "pipe").c_str(), 0600) == 0);
  fs::create_symlink(other.path(), dir / "folder-link");
  fs::create_symlink(dir.path(), dir / "loop");
  fs::create_symlink("nowhere", dir / "dangling");
  fs::create_symlink("self", dir / "self");
  fs::create_symlink(other / "far", dir / "file-link");
  CHECK(listed(dir.path()) == Names{"file-link", "model"});
  CHECK(open_input(dir.path().string())->find("file-link")->path == other / "far");
}

TEST_CASE("links that lead to each other or to themselves are no files") {
  const TempDir dir;
  put(dir / "model-00001-of-00002.gguf");
  put(dir / "model-00002-of-00002.gguf");
  put(dir / "sub/model");
  for (const fs::path& folder : {dir.path(), dir / "sub"}) {
    fs::create_symlink("b", folder / "a");
    fs::create_symlink("a", folder / "b");
    fs::create_symlink("self", folder / "self");
  }
  fs::create_symlink("model-00003-of-00002.gguf", dir / "model-00003-of-00002.gguf");
  CHECK(listed(dir.path()) ==
        Names{"model-00001-of-00002.gguf", "model-00002-of-00002.gguf", "sub/model"});
  const auto part = open_input((dir / "model-00001-of-00002.gguf").string());
  REQUIRE(part);
  CHECK(part->find("model-00002-of-00002.gguf"));
  CHECK(part->find("model-00003-of-00002.gguf") == nullptr);
  CHECK(contains(refusal(dir / "self"),
                 "found a link that leads nowhere at " + (dir / "self").string()));
}

TEST_CASE("folders are read five deep") {
  const TempDir dir;
  put(dir / "1/2/3/4/file");
  put(dir / "1/2/3/4/5/file");
  CHECK(listed(dir.path()) == Names{"1/2/3/4/file"});
}

TEST_CASE("a single file is an input of one entry under the name that was given") {
  const TempDir dir;
  put(dir / "model.safetensors", "12345");
  put(dir / "other");
  fs::create_symlink("model.safetensors", dir / "link.safetensors");
  CHECK(listed(dir / "model.safetensors") == Names{"model.safetensors"});
  CHECK(listed(dir / "link.safetensors") == Names{"link.safetensors"});
  const auto input = open_input((dir / "link.safetensors").string());
  CHECK(input->entries()[0].size == 5);
  CHECK(input->entries()[0].path == dir / "model.safetensors");
}

TEST_CASE("a source that is nothing, or neither file nor folder, is refused") {
  const TempDir dir;
  CHECK(contains(refusal(dir / "none"), "found nothing at " + (dir / "none").string()));
  CHECK(contains(message(open_input("")), "found nothing at"));
  CHECK(contains(message(open_input("/no/\x1b[2J")), "\\x1b[2J"));
  REQUIRE(mkfifo((dir / "pipe").c_str(), 0600) == 0);
  CHECK(contains(refusal(dir / "pipe"),
                 "expected a regular file or a folder, found " + (dir / "pipe").string()));
}

TEST_CASE("a snapshot of the Hugging Face cache is read through its links") {
  const TempDir cache;
  const fs::path snapshot = make_snapshot(cache.path());
  const Names files{"config.json", "model.safetensors"};
  CHECK(listed(snapshot) == files);
  CHECK(listed(cache / "models--org--name") == files);  // the repository's own folder: refs/main
  CHECK(listed(snapshot / "model.safetensors") == Names{"model.safetensors"});
  CHECK(open_input(snapshot.string())->find("model.safetensors")->path ==
        cache / "models--org--name/blobs/aa");

  setenv("HF_HUB_CACHE", cache.path().c_str(), 1);
  CHECK(listed("org/name") == files);
  CHECK(open_input("org/name")->root() == snapshot);
  CHECK(open_input("org/name")->given() == "org/name");
  CHECK(contains(message(open_input("org/other")), "hf download org/other"));
  unsetenv("HF_HUB_CACHE");
}

TEST_CASE("a path that exists goes before a Hub name of the same spelling") {
  const TempDir dir;
  put(dir / "org/name/here");
  const fs::path before = fs::current_path();
  fs::current_path(dir.path());
  CHECK(listed("org/name") == Names{"here"});
  fs::current_path(before);
}

TEST_CASE("a snapshot's links may not leave its repository, nor lead nowhere") {
  const TempDir cache, elsewhere;
  const fs::path snapshot = make_snapshot(cache.path());
  put(elsewhere / "secret");
  SECTION("out of the repository") {
    fs::create_symlink(elsewhere / "secret", snapshot / "tokenizer.json");
    const std::string text = refusal(snapshot);
    CHECK(contains(text, "expected the links of a Hugging Face snapshot to stay inside"));
    CHECK(contains(text, "tokenizer.json leading to " + (elsewhere / "secret").string()));
  }
  SECTION("into a neighbour whose name begins alike") {
    put(cache / "models--org--name2/blobs/cc");
    fs::create_symlink("../../../models--org--name2/blobs/cc", snapshot / "x");
    CHECK(contains(refusal(snapshot), "to stay inside"));
  }
  // Whether one that leads nowhere matters, only a reader can tell.
  const auto broken = [&](std::initializer_list<std::pair<const char*, const char*>> links) {
    for (const auto& [target, name] : links) fs::create_symlink(target, snapshot / name);
    const auto input = open_input(snapshot.string());
    REQUIRE(input);
    CHECK(input->entries().size() == 2);
    return input->broken_links();
  };
  SECTION("to a blob that was not downloaded") {
    CHECK(broken({{"../../blobs/none", "model-2.safetensors"}}) == Names{"model-2.safetensors"});
  }
  SECTION("to itself") { CHECK(broken({{"a", "a"}}) == Names{"a"}); }
  SECTION("to each other") { CHECK(broken({{"b", "a"}, {"a", "b"}}) == Names{"a", "b"}); }
}

TEST_CASE("a snapshot whose large files lie in the cache's store of shared blobs") {
  const TempDir cache;
  const fs::path snapshot = make_snapshot(cache.path());
  const std::string sha256(64, 'a'), xet = "cd" + std::string(62, '1');
  put(cache / "blobs/cd" / xet, "large");
  if (GENERATE(true, false)) put(cache / "blobs/.huggingface-shared-blobs", "1\n");
  fs::create_symlink("../../blobs/cd/" + xet, cache / "models--org--name/blobs" / sha256);
  fs::create_symlink("../../blobs/" + sha256, snapshot / "large.safetensors");
  const auto input = open_input(snapshot.string());
  REQUIRE(input);
  const InputEntry* large = input->find("large.safetensors");
  REQUIRE(large);
  CHECK(large->size == 5);
  CHECK(large->path == cache / "blobs/cd" / xet);
  CHECK(large->digest == "sha256:" + sha256);
  CHECK(open_input((snapshot / "large.safetensors").string())->entries()[0].digest ==
        "sha256:" + sha256);
  fs::remove(cache / "blobs/cd" / xet);
  CHECK(open_input(snapshot.string())->broken_links() == Names{"large.safetensors"});
}

TEST_CASE("the Hub's list of a commit's files: digests of copies, and sizes") {
  const TempDir cache;
  const fs::path snapshot = cache / "models--org--name/snapshots/c0ffee";
  fs::create_directories(cache / "models--org--name/blobs");
  const std::string sha256(64, 'a');
  put(snapshot / "model.safetensors", "12345");  // a copy: links are off
  const auto tree = [&](int size) {
    put(cache / "models--org--name/trees/c0ffee.json",
        R"({"format_version": 1, "files": {"model.safetensors": {"size": 5, "blob_id": "0", "lfs_sha256": ")" +
            sha256 + R"(", "lfs_size": )" + std::to_string(size) +
            R"(}, "other.safetensors": {"size": 1, "blob_id": "0"}}})");
  };
  tree(5);
  auto input = open_input(snapshot.string());
  REQUIRE(input);
  CHECK(input->entries()[0].digest == "sha256:" + sha256);
  CHECK(input->check_as_published(input->entries()[0]));
  CHECK(input->commit_files()->count("other.safetensors") == 1);
  tree(6);
  input = open_input(snapshot.string());
  CHECK(input->entries()[0].digest.empty());
  CHECK(contains(message(input->check_as_published(input->entries()[0])),
                 "expected model.safetensors of 6 bytes, as the Hub has it, found 5"));
}

TEST_CASE("a file that is named: its neighbours are found and not listed") {
  const TempDir dir;
  for (const char* name : {"b.bin", "a.bin", "config.json", "sub/c.bin"}) put(dir / name, name);
  const auto input = open_input((dir / "b.bin").string());
  REQUIRE(input);
  CHECK(input->named() == "b.bin");
  CHECK(input->entries().size() == 1);
  CHECK(input->find("a.bin"));
  CHECK(input->find("config.json"));
  CHECK_FALSE(input->find("c.bin"));
  CHECK_FALSE(input->find("sub/c.bin"));
  CHECK(open_input(dir.path().string())->named().empty());
}

TEST_CASE("a bad link does not hide a named file's neighbours") {
  const TempDir cache;
  const fs::path snapshot = make_snapshot(cache.path());
  fs::create_symlink("../../blobs/none", snapshot / "other");
  fs::create_symlink("/etc/hostname", snapshot / "outside");
  const auto input = open_input((snapshot / "model.safetensors").string());
  REQUIRE(input);
  CHECK(input->find("config.json"));
  CHECK_FALSE(input->find("outside"));
}

TEST_CASE("an index that is named stands for its folder") {
  const TempDir dir;
  const char* index = GENERATE("a.index.json", "a.bin.index.fp16.json");
  for (const char* name : {index, "a-1-of-1.bin", "config.json"}) put(dir / name, name);
  const auto input = open_input((dir / index).string());
  REQUIRE(input);
  CHECK(input->named() == index);
  CHECK(input->entries().size() == 3);
  CHECK(input->root() == dir.path());
}

TEST_CASE("a blob that is named goes by its name in a snapshot") {
  const TempDir cache;
  make_snapshot(cache.path());
  const auto blob = open_input((cache / "models--org--name/blobs/aa").string());
  REQUIRE(blob);
  CHECK(blob->named() == "model.safetensors");
  CHECK(blob->entries()[0].name == "model.safetensors");
  const TempDir elsewhere;
  fs::create_symlink(cache / "models--org--name/snapshots/c0ffee/model.safetensors",
                     elsewhere / "w.safetensors");
  CHECK(open_input((elsewhere / "w.safetensors").string())->named() == "model.safetensors");
  const std::string xet = "cd" + std::string(62, '1'), sha256(64, 'a');
  put(cache / "blobs/cd" / xet, "large");
  fs::create_symlink("../../blobs/cd/" + xet, cache / "models--org--name/blobs" / sha256);
  fs::create_symlink("../../blobs/" + sha256,
                     cache / "models--org--name/snapshots/c0ffee/large.safetensors");
  CHECK(open_input((cache / "blobs/cd" / xet).string())->named() == "large.safetensors");
  put(cache / "models--org--name/blobs/cc", "of no snapshot");
  CHECK(open_input((cache / "models--org--name/blobs/cc").string())->named() == "cc");
}

TEST_CASE("links that lead nowhere are remembered") {
  const TempDir dir;
  put(dir / "model");
  fs::create_symlink("../../blobs/none", dir / "weights");
  const auto input = open_input(dir.path().string());
  REQUIRE(input);
  CHECK(input->broken_links() == Names{"weights"});
  CHECK(contains(refusal(dir / "weights"), "found a link that leads nowhere at"));
}

TEST_CASE("a file that was replaced by a pipe is refused without blocking") {
  const TempDir dir;
  put(dir / "model");
  const auto input = open_input(dir.path().string());
  fs::remove(dir / "model");
  REQUIRE(mkfifo((dir / "model").c_str(), 0600) == 0);
  CHECK(message(input->open(Os::real(), input->entries()[0])) == "model: expected a regular file");
  fs::remove(dir / "model");
  CHECK(message(input->open(Os::real(), input->entries()[0])) ==
        "model: No such file or directory");
}

TEST_CASE("a file that changes after it was listed is seen") {
  const TempDir dir;
  put(dir / "model", "12345");
  const auto input = open_input(dir.path().string());
  const InputEntry& entry = input->entries()[0];
  CHECK(Input::check_unchanged(entry).has_value());
  SECTION("another size") { put(dir / "model", "123456"); }
  SECTION("another time, to the nanosecond") {
    const timespec times[2] = {
        {0, UTIME_OMIT},
        {entry.modified_ns / 1'000'000'000, (entry.modified_ns + 1) % 1'000'000'000}};
    REQUIRE(utimensat(AT_FDCWD, entry.path.c_str(), times, 0) == 0);
  }
  const auto result = Input::check_unchanged(entry);
  CHECK(contains(message(result), "expected model to stay as it was"));
  CHECK(result.error().code == XD_CORRUPT);
}

TEST_CASE("a file that is gone after it was listed is seen") {
  const TempDir dir;
  put(dir / "model");
  const auto input = open_input(dir.path().string());
  fs::remove(dir / "model");
  CHECK(message(Input::check_unchanged(input->entries()[0])) == "model: No such file or directory");
}

TEST_CASE("the config of another folder stands in the place of SRC's own") {
  const TempDir dir;
  put(dir / "job/latest", "global_step3");
  put(dir / "job/config.json", "old");
  put(dir / "job/vocab.txt", "old");
  put(dir / "model/config.json", "{}");
  put(dir / "model/tokenizer.json", "{}");
  put(dir / "model/model.safetensors");
  auto input = open_input((dir / "job").string());
  SECTION("a folder") { REQUIRE(input->take_config((dir / "model").string())); }
  SECTION("a file in it") { REQUIRE(input->take_config((dir / "model/config.json").string())); }
  Names names;
  for (const InputEntry& entry : input->entries()) names.push_back(entry.name);
  CHECK(names == Names{"config.json", "latest", "tokenizer.json"});
  CHECK(input->find("config.json")->path == dir / "model/config.json");
  CHECK(contains(message(input->take_config((dir / "nowhere").string())), "--config: expected"));
  fs::remove(dir / "model/config.json");
  CHECK(contains(message(input->take_config((dir / "model").string())),
                 "expected a folder with the model's config.json, found none"));
}
