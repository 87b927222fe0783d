// SPDX-License-Identifier: Apache-2.0
#include "plugins/common/hf_folder.h"

#include <crossdock/aux_names.hpp>

#include "tests/catch.h"
#include <crossdock/testing/memory_host.h>

using namespace crossdock;
using common::ShardIndex;
using manifest::AuxKind;

namespace {

std::string index_error(std::string_view text) {
  const auto index = common::parse_shard_index(text);
  return index ? "accepted" : index.error().message;
}

std::string one_shard(const std::string& name) {
  return cat(R"({"weight_map": {"a": ")", name, "\"}}");
}

}  // namespace

TEST_CASE("hf_folder: which files belong to the model") {
  CHECK(aux_kind("config.json") == AuxKind::kConfig);
  CHECK(aux_kind("generation_config.json") == AuxKind::kGenerationConfig);
  CHECK(aux_kind("preprocessor_config.json") == AuxKind::kProcessor);
  for (const char* name :
       {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
        "vocab.json", "vocab.txt", "merges.txt", "tokenizer.model", "spiece.model",
        "sentencepiece.bpe.model", "qwen.tiktoken", "chat_template.json", "chat_template.jinja",
        "additional_chat_templates/rag.jinja"}) {
    CAPTURE(name);
    CHECK(aux_kind(name) == AuxKind::kTokenizer);
  }
  for (const char* name : {"model.safetensors", "README.md", "original/tokenizer.model",
                           "sub/config.json", "additional_chat_templates/a/b.jinja",
                           "additional_chat_templates/a.txt", "a.jinja", "deep/a.tiktoken"}) {
    CAPTURE(name);
    CHECK_FALSE(aux_kind(name));
  }
  const std::vector<std::string> names{"README.md", "config.json", "vocab.txt"};
  const auto files = common::aux_files(names);
  REQUIRE(files.size() == 2);
  CHECK(files[1] == manifest::AuxFile{AuxKind::kTokenizer, "vocab.txt", "vocab.txt"});
}

TEST_CASE("hf_folder: config.json") {
  test::MemoryHost host;
  const auto read = [&]() -> std::string {
    const Host api = host.api();
    const Input input(host.input());
    const auto config = common::read_config(api, input, input.names(api));
    if (!config) return host.text(config.error());
    const auto* map = config->get<manifest::ValueMap>();
    return map ? cat(map->entries.size(), " members") : "none";
  };
  CHECK(read() == "none");
  host.inputs["config.json"] = R"({"model_type": "mamba2", "time_step_limit": [0.0, Infinity]})";
  CHECK(read() == "2 members");
  host.inputs["config.json"] = "[]";
  CHECK(read() ==
        "config.json (`python3 -m json.tool` shows where it breaks): expected an object, found an "
        "array");
  host.inputs["config.json"] = R"({"a": 1, "a": 2})";
  CHECK(read() ==
        "config.json (`python3 -m json.tool` shows where it breaks): expected each key of an "
        "object once, found \"a\" "
        "twice");
  host.inputs["config.json"] = "";
  CHECK(read().find("config.json (`python3 -m json.tool` shows where it breaks): expected JSON, "
                    "found 0 bytes that are not") == 0);
  host.input_sizes["config.json"] = common::kMaxConfigBytes + 1;
  CHECK(read() == "config.json: expected at most 67108864 bytes of JSON, found 67108865");
}

TEST_CASE("hf_folder: a shard index") {
  const auto index = common::parse_shard_index(
      R"({"metadata": {"total_size": 12}, "weight_map": {"c": "2.bin", "a": "1.bin", "b": "2.bin"}, "extra": [1]})");
  REQUIRE(index);
  CHECK(index->shards == std::vector<std::string>{"1.bin", "2.bin"});
  CHECK(index->total_size == 12u);
  REQUIRE(index->weight_map.size() == 3);
  CHECK(index->weight_map[0].tensor == "a");
  REQUIRE(index->find("c"));
  CHECK(index->find("c")->shard == 1);
  CHECK_FALSE(index->find("d"));
}

TEST_CASE("hf_folder: total_size is a number of bytes or nothing") {
  const auto total = [](const std::string& metadata) {
    return common::parse_shard_index(cat(R"({"weight_map": {"a": "1.bin"})", metadata, "}"))
        ->total_size;
  };
  CHECK(total(R"(, "metadata": {"total_size": 12})") == 12u);
  CHECK(total(R"(, "metadata": {"total_size": 1.2e1})") == 12u);
  for (const char* text :
       {"", R"(, "metadata": null)", R"(, "metadata": {})", R"(, "metadata": {"total_size": null})",
        R"(, "metadata": {"total_size": "12"})", R"(, "metadata": {"total_size": -1})",
        R"(, "metadata": {"total_size": 1.5})", R"(, "metadata": {"total_size": 1e300})"}) {
    CAPTURE(text);
    CHECK_FALSE(total(text));
  }
}

TEST_CASE("hf_folder: bad indexes are refused") {
  CHECK(index_error("[]") == "expected an object with a \"weight_map\", found an array");
  CHECK(index_error("{}") ==
        "expected a \"weight_map\" in the index, found none: download or save the index again");
  CHECK(index_error(R"({"weight_map": []})") ==
        "expected \"weight_map\" to be an object, found an array");
  CHECK(index_error(R"({"weight_map": {}})") ==
        "expected tensors in \"weight_map\", found none: download or save the index again");
  CHECK(index_error(R"({"weight_map": {"a": 1}})") ==
        "tensor \"a\": expected the name of its shard, found an integer");
  CHECK(index_error(R"({"weight_map": {"a": "1.bin", "\u0061": "1.bin"}})") ==
        "expected each key of \"weight_map\" once, found \"a\" twice");
  CHECK(index_error(R"({"weight_map": {"a": "1.bin"}, "weight_map": {"a": "1.bin"}})") ==
        "expected each key of the index once, found \"weight_map\" twice");
  CHECK(index_error("{").find("expected JSON, found 1 bytes") == 0);
}

TEST_CASE("hf_folder: the names of shards stay in the folder") {
  CHECK(index_error(one_shard("../x.bin")) ==
        "tensor \"a\": expected the relative name of a shard in this folder, found \"../x.bin\"");
  for (const char* name : {"", "/etc/passwd", "..", ".", "./", "./..", "a/../b", "a/..", "a/./b",
                           "a//b", "a/", "a\\\\b", "C:/a", "a\\u0000b", "a\\u001b[2J"}) {
    CAPTURE(name);
    CHECK(
        index_error(one_shard(name)).find("tensor \"a\": expected the relative name of a shard") ==
        0);
  }
  for (const char* name : {"a", "sub/a.bin", "..a", "a..b", "...", "a b", "./a", "././a"}) {
    CAPTURE(name);
    CHECK(index_error(one_shard(name)) == "accepted");
  }
}
