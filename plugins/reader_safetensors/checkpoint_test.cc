// SPDX-License-Identifier: Apache-2.0
#include "plugins/reader_safetensors/checkpoint.h"

#include "plugins/reader_safetensors/recipes_for_test.h"

using namespace crossdock;
using namespace crossdock::reader_safetensors;

namespace {

const char* const kIndexName = "model.safetensors.index.json";
const char* const kShard1 = "model-00001-of-00002.safetensors";
const char* const kShard2 = "model-00002-of-00002.safetensors";
const std::string kSaveAgain =
    ": the files are of different saves, download or save the model again";

std::string index_of(const std::vector<std::pair<std::string, std::string>>& weight_map,
                     const std::string& total_size = "3") {
  std::string out;
  for (const auto& [tensor, shard] : weight_map)
    out += cat(out.empty() ? "" : ", ", "\"", tensor, "\": \"", shard, "\"");
  return cat(R"({"metadata": {"total_size": )", total_size, R"(}, "weight_map": {)", out, "}}");
}

// Two shards: {x, y} and {z}.
void sharded(test::MemoryHost& host) {
  host.inputs[kShard1] = bytes_file({"y", "x"});
  host.inputs[kShard2] = bytes_file({"z"});
  host.inputs[kIndexName] = index_of({{"x", kShard1}, {"y", kShard1}, {"z", kShard2}});
}

std::string outcome_of(const std::vector<std::string>& names,
                       const test::OptionValues& options = {}) {
  test::MemoryHost host;
  for (const std::string& name : names)
    host.inputs[name] = name.ends_with(".safetensors") ? bytes_file({"w"}) : "{}";
  const auto reader = open(host, options);
  return reader ? (*reader)->manifest.source.files[0].name : reader.error().message;
}

}  // namespace

TEST_CASE("checkpoint: which file opens the model") {
  CHECK(outcome_of({"model.safetensors", "config.json"}) == "model.safetensors");
  CHECK(outcome_of({"anything.safetensors"}) == "anything.safetensors");
  CHECK(outcome_of({"config.json", "pytorch_model.safetensors"}) == "pytorch_model.safetensors");
  CHECK(outcome_of({"model.safetensors", "consolidated.safetensors"}) == "model.safetensors");
  CHECK(outcome_of({"model.safetensors", "original/a.safetensors", "original/b.safetensors"}) ==
        "model.safetensors");
  CHECK(outcome_of({"model-00001-of-00001.safetensors"}) == "model-00001-of-00001.safetensors");
  CHECK(outcome_of({"model.safetensors", "model.fp16.safetensors"}, {{"variant", "fp16"}}) ==
        "model.fp16.safetensors");
}

TEST_CASE("checkpoint: inputs without a model") {
  CHECK(outcome_of({"config.json", "original/model.safetensors"}) ==
        "expected model.safetensors or model.safetensors.index.json, found no .safetensors file of "
        "a whole model: "
        "name the model's folder, or the file");
  CHECK(outcome_of({kShard2, "config.json"}) ==
        cat("expected all 2 parts of a model, found 1 (", kShard2, ") and not ", kShard1,
            ": download the others, and their index if there is one"));
  std::vector<std::string> many;
  for (int i = 10; i < 22; ++i) many.push_back(cat("m", i, ".safetensors"));
  CHECK(outcome_of(many).find("expected model.safetensors, or model.safetensors.index.json to say "
                              "which tensor is where, "
                              "found m10.safetensors, ") == 0);
  CHECK(outcome_of(many).find("m17.safetensors and 4 more: name the file that holds the whole "
                              "model, or choose by --variant") != std::string::npos);
  CHECK(outcome_of({"model.safetensors"}, {{"variant", "fp16"}}) ==
        "expected model.fp16.safetensors, or model.safetensors.index.fp16.json to say which tensor "
        "is where, found "
        "model.safetensors: name the file that holds the whole model, or another --variant");
}

TEST_CASE("checkpoint: an adapter is read as a file, with a warning") {
  test::MemoryHost host;
  host.inputs["adapter_model.safetensors"] = bytes_file({"w"});
  host.inputs["adapter_config.json"] = "{}";
  CHECK(outcome(host) == "accepted");
  CHECK(host.logged("adapter_model.safetensors holds an adapter (LoRA), not a whole model"));
}

TEST_CASE("checkpoint: a folder with both a single file and an index, as transformers reads it") {
  test::MemoryHost host;
  sharded(host);
  host.inputs["model.safetensors"] = bytes_file({"w"});
  const auto reader = open(host);
  REQUIRE(reader);
  CHECK((*reader)->manifest.tensors.size() == 1);
  CHECK(host.logs == std::vector<std::pair<int32_t, std::string>>{
                         {XD_LOG_WARN, cat("found both model.safetensors and ", kIndexName,
                                           ": reading model.safetensors, as transformers does")}});
}

TEST_CASE("checkpoint: a sharded folder") {
  test::MemoryHost host;
  sharded(host);
  host.inputs["config.json"] =
      R"({"tie_word_embeddings": true, "time_step_limit": [0.0, Infinity]})";
  host.inputs["tokenizer.json"] = "{}";
  host.inputs["original/params.json"] = "{}";
  const auto reader = open(host);
  REQUIRE(reader);
  const auto& m = (*reader)->manifest;
  REQUIRE(m.source.files.size() == 2);
  CHECK(m.source.files[1].name == kShard2);
  std::string names, values;
  for (uint64_t i = 0; i < m.tensors.size(); ++i) {
    names += m.tensors[i].name;
    values += *(*reader)->read(i);
  }
  CHECK(names == "yxz");
  CHECK(values == "aba");
  CHECK(m.tensors[2].extents[0].file == 1);
  REQUIRE(m.source.config.get<manifest::ValueMap>());
  CHECK(m.source.config.get<manifest::ValueMap>()->find("tie_word_embeddings")->kind ==
        manifest::Value{true}.kind);
  REQUIRE(m.aux_files.size() == 2);
  CHECK(m.aux_files[1].name == "tokenizer.json");
  CHECK(host.logs.empty());
  CHECK(host.allocated == 0);  // no header is kept
}

TEST_CASE("checkpoint: metadata that shards repeat is kept once") {
  test::MemoryHost host;
  const auto shard = [](const std::string& metadata, const std::string& name) {
    return file("{\"__metadata__\":" + metadata + "," + entry(name, "U8", "[1]", 0, 1) + "}", "x");
  };
  host.inputs[kShard1] = shard(R"({"format":"pt","n":"1"})", "x");
  host.inputs[kShard2] = shard(R"({"format":"pt","n":"2"})", "y");
  host.inputs[kIndexName] = index_of({{"x", kShard1}, {"y", kShard2}}, "2");
  const auto reader = open(host);
  REQUIRE(reader);
  std::string text;
  for (const auto& [key, value] : (*reader)->manifest.source.metadata)
    text += cat(key, "=", *value.get<std::string>(), " ");
  CHECK(text == "format=pt n=1 n=2 ");
}

TEST_CASE("checkpoint: variants of a sharded model") {
  for (const char* name :
       {"model.safetensors.index.fp16.json", "model.fp16.safetensors.index.json"}) {
    CAPTURE(name);
    test::MemoryHost host;
    host.inputs["model.fp16-00001-of-00001.safetensors"] = bytes_file({"w"});
    host.inputs["model.safetensors"] = bytes_file({"v"});
    host.inputs[name] = index_of({{"w", "model.fp16-00001-of-00001.safetensors"}}, "1");
    const auto reader = open(host, {{"variant", "fp16"}});
    REQUIRE(reader);
    CHECK((*reader)->manifest.tensors[0].name == "w");
  }
}

TEST_CASE("checkpoint: every tensor of the index is in the files, and in one of them") {
  test::MemoryHost host;
  sharded(host);
  const auto with_index = [&](const std::vector<std::pair<std::string, std::string>>& weight_map) {
    host.inputs[kIndexName] = index_of(weight_map);
    return outcome(host);
  };
  const std::string place = cat(kIndexName, ": ");
  CHECK(with_index({{"x", kShard1}, {"y", kShard1}, {"z", kShard2}}) == "accepted");
  CHECK(with_index({{"x", kShard1}, {"y", kShard1}, {"z", kShard2}, {"lost", kShard2}}) ==
        cat(place, "expected tensor \"lost\" in ", kShard2, ", found it in no file", kSaveAgain));
  // transformers takes from the index only which files there are.
  CHECK(with_index({{"x", kShard1}, {"y", kShard2}, {"z", kShard2}}) == "accepted");
  CHECK(host.logged(cat(place, "\"y\" is not in the file that the index says; read all the same")));
  CHECK(with_index({{"x", kShard1}, {"z", kShard2}}) == "accepted");
  CHECK(host.logged(cat(place, "\"y\" of the files is not in the index; read all the same")));
  CHECK(with_index({{"x", kShard1}, {"y", kShard1}, {"zz", kShard2}}) ==
        cat(place, "expected tensor \"zz\" in ", kShard2, ", found it in no file", kSaveAgain));
  CHECK(with_index({{"x", kShard1}, {"y", kShard1}, {"z", "gone.safetensors"}}) ==
        cat(place,
            "expected all 2 files that it lists beside it, found 1 missing (gone.safetensors): "
            "name the folder that "
            "holds them, or run "
            "`hf download` again"));
  host.inputs[kShard2] = bytes_file({"z", "x"});
  CHECK(with_index({{"x", kShard1}, {"y", kShard1}, {"z", kShard2}}) ==
        cat(place, "expected tensor \"x\" in one file, found it in ", kShard1, " and ", kShard2,
            kSaveAgain));
}

TEST_CASE("checkpoint: a tensor in the right file and in another") {
  test::MemoryHost host;
  sharded(host);
  host.inputs[kShard1] = bytes_file({"x", "y", "z"});
  CHECK(outcome(host) == cat(kIndexName, ": expected tensor \"z\" in one file, found it in ",
                             kShard1, " and ", kShard2, kSaveAgain));
}

TEST_CASE("checkpoint: the index alone") {
  test::MemoryHost host;
  host.inputs[kIndexName] = index_of({{"x", kShard1}, {"z", kShard2}});
  CHECK(outcome(host).find(cat(kIndexName,
                               ": expected all 2 files that it lists beside it, found 2 missing (",
                               kShard1, ", ", kShard2, ")")) == 0);
}

TEST_CASE("checkpoint: what the index may not say") {
  test::MemoryHost host;
  sharded(host);
  host.inputs[kIndexName] = index_of({{"x", "../x.safetensors"}});
  CHECK(outcome(host) == cat(kIndexName,
                             ": tensor \"x\": expected the relative name of a shard in this "
                             "folder, found \"../x.safetensors\""));
  host.inputs[kIndexName] = index_of({});
  CHECK(outcome(host) ==
        cat(kIndexName,
            ": expected tensors in \"weight_map\", found none: download or save the index again"));
  host.inputs[kIndexName] = "{\"weight_map\": ";
  CHECK(outcome(host).find(cat(kIndexName, ": expected JSON, found 15 bytes")) == 0);
}

TEST_CASE("checkpoint: a wrong total_size is logged, as nobody reads it") {
  test::MemoryHost host;
  sharded(host);
  host.inputs[kIndexName] = index_of({{"x", kShard1}, {"y", kShard1}, {"z", kShard2}}, "4");
  CHECK(outcome(host) == "accepted");
  REQUIRE(host.logs.size() == 1);
  CHECK(host.logs[0].first == XD_LOG_WARN);
  CHECK(host.logs[0].second ==
        cat(kIndexName,
            ": its total_size is 4, but the tensors have 3 bytes; every tensor is where the "
            "index says, so this is ignored"));
}

TEST_CASE("checkpoint: a broken shard is named") {
  test::MemoryHost host;
  sharded(host);
  host.inputs[kShard2].pop_back();
  CHECK(outcome(host) ==
        cat(kShard2,
            ": expected 1 bytes of tensors, found 0: the file is cut off, as by an interrupted "
            "download: run `hf download` again"));
}

TEST_CASE("checkpoint: stops when cancelled") {
  test::MemoryHost host;
  sharded(host);
  host.cancel = true;
  const auto reader = open(host);
  REQUIRE_FALSE(reader);
  CHECK(reader.error().code == XD_CANCELLED);
}

TEST_CASE("checkpoint: of a file that the user named, its first bytes tell") {
  for (const char* name : {"0f3a9c", "x.bin", "MODEL.SAFETENSORS", "model.safetensors"}) {
    CAPTURE(name);
    CHECK(test::probe_file(name, bytes_file({"w"})) == 90);
  }
  CHECK(test::probe_file("x.safetensors", "") == 10);
  CHECK(test::probe_file("x.safetensors", "version https://git-lfs") == 10);
  CHECK(test::probe_file("x", "12345678{") == 0);  // a length beyond the file
  CHECK(test::probe_file(kIndexName, "{}") == 100);
  CHECK(test::probe_file("model.safetensors.index.fp16.json", "{}") == 100);
  CHECK(test::probe_file("pytorch_model.bin.index.json", "{}") == 0);
}

TEST_CASE("checkpoint: all parts and no index are read, with a warning") {
  for (const std::string of : {"-of-00002.safetensors", "-of-00002.fp16.safetensors"}) {
    CAPTURE(of);
    test::MemoryHost host;
    host.inputs["model-00001" + of] = bytes_file({"x"});
    host.inputs["model-00002" + of] = bytes_file({"y"});
    const auto reader = open(host);
    REQUIRE(reader);
    CHECK((*reader)->manifest.tensors.size() == 2);
    CHECK(
        host.logged("found all 2 parts and no model.safetensors.index.json: reading model-00001"));
    host.inputs["model-00002" + of] = bytes_file({"x"});
    CHECK(outcome(host).find("expected tensor \"x\" in one file, found it in model-00001") == 0);
  }
  test::MemoryHost host;  // counted from 0; the parts of a variant beside them are not taken
  for (const char* name : {"model-0-of-2.safetensors", "model-1-of-2.safetensors"})
    host.inputs[name] = bytes_file({name});
  for (const char* name : {"model.fp16-0-of-2.safetensors", "model.fp16-1-of-2.safetensors"})
    host.inputs[name] = bytes_file({name});
  const auto reader = open(host);
  REQUIRE(reader);
  CHECK((*reader)->manifest.source.files[0].name == "model-0-of-2.safetensors");
  const auto half = open(host, {{"variant", "fp16"}});
  REQUIRE(half);
  CHECK((*half)->manifest.source.files[0].name == "model.fp16-0-of-2.safetensors");
}

TEST_CASE("checkpoint: one part that the user named is no model") {
  for (const char* name : {"model-00001-of-000163.safetensors", "model-1-of-2.safetensors",
                           "m_00001-of-00002.safetensors"}) {
    CAPTURE(name);
    test::MemoryHost host;
    host.inputs[name] = bytes_file({"w"});
    host.named = name;
    CHECK(outcome(host).find(
              cat("expected a whole model, found ", name, ", which is one part of ")) == 0);
  }
}

TEST_CASE("checkpoint: other stems, and an index that is named or the only one") {
  for (const std::string stem : {"diffusion_pytorch_model", "consolidated", "custom"}) {
    CAPTURE(stem);
    test::MemoryHost host;
    host.inputs[stem + "-00001-of-00001.safetensors"] = bytes_file({"w"});
    host.inputs[stem + ".safetensors.index.json"] =
        index_of({{"w", "./" + stem + "-00001-of-00001.safetensors"}}, "1");
    host.inputs["vae.safetensors"] = bytes_file({"v"});
    CHECK(outcome(host) == "accepted");
    host.inputs["model.safetensors"] = bytes_file({"m"});
    auto reader = open(host);
    REQUIRE(reader);
    CHECK((*reader)->manifest.tensors[0].name == "m");
    host.named = stem + ".safetensors.index.json";
    reader = open(host);
    REQUIRE(reader);
    CHECK((*reader)->manifest.tensors[0].name == "w");
  }
}

TEST_CASE("checkpoint: an index of another save beside a whole set of parts") {
  test::MemoryHost host;
  host.inputs[kShard1] = bytes_file({"x"});
  host.inputs[kShard2] = bytes_file({"y"});
  host.inputs[kIndexName] = index_of(
      {{"x", "model-00001-of-00003.safetensors"}, {"y", "model-00003-of-00003.safetensors"}}, "2");
  CHECK(outcome(host) == "accepted");
  CHECK(host.logged(
      cat(kIndexName, " is of another save: it lists model-00001-of-00003.safetensors, ")));
  host.inputs[kIndexName] = index_of(
      {{"x", "model-00001-of-00003.safetensors"}, {"z", "model-00003-of-00003.safetensors"}}, "2");
  CHECK(outcome(host).find("expected the index to list every tensor of the files read in place of "
                           "its own, found \"y\"") != std::string::npos);
  host.inputs[kIndexName] = index_of({{"x", "model-00001-of-00003.safetensors"},
                                      {"y", "model-00003-of-00003.safetensors"},
                                      {"z", "model-00003-of-00003.safetensors"}},
                                     "2");
  CHECK(outcome(host).find("expected tensor \"z\" in one of the files, found it in no file") !=
        std::string::npos);
}

TEST_CASE(
    "checkpoint: what lies beside a model alone is no model, and a set of parts is not taken "
    "before other files") {
  for (const char* name :
       {"value_head.safetensors", "learned_embeds.safetensors", "optimizer.safetensors"})
    CHECK(outcome_of({"config.json", name}).find("found no .safetensors file of a whole model") !=
          std::string::npos);
  CHECK(outcome_of({"my.safetensors", "optimizer-1-of-1.safetensors"}) == "my.safetensors");
  CHECK(outcome_of({"my.safetensors", "x-1-of-2.safetensors", "x-2-of-2.safetensors"})
            .find("name the file that holds the whole model") != std::string::npos);
  CHECK(outcome_of({"my.safetensors", "model-1-of-1.safetensors"}) == "model-1-of-1.safetensors");
  CHECK(outcome_of({"my.safetensors", "adapter_model.safetensors"}) == "my.safetensors");
  std::vector<std::string> one{"model-00001-of-00100.safetensors"};
  CHECK(outcome_of(one).find(
            "expected all 100 parts of a model, found 1 (model-00001-of-00100.safetensors) and not "
            "model-00002-of-00100.safetensors, ") == 0);
  CHECK(outcome_of(one).find("model-00009-of-00100.safetensors, ...: download") !=
        std::string::npos);
}

TEST_CASE("checkpoint: an adapter beside a model is told") {
  test::MemoryHost host;
  host.inputs["model.safetensors"] = bytes_file({"w"});
  host.inputs["adapter_model.bin"] = "";
  CHECK(outcome(host) == "accepted");
  CHECK(host.logged(
      "adapter_model.bin beside the model is an adapter (LoRA), which is not in the result"));
}

TEST_CASE("checkpoint: the file that config.json asks for") {
  test::MemoryHost host;
  host.inputs["model.safetensors"] = bytes_file({"w"});
  host.inputs["other.safetensors"] = bytes_file({"o"});
  host.inputs["config.json"] = R"({"transformers_weights": "other.safetensors"})";
  const auto reader = open(host);
  REQUIRE(reader);
  CHECK((*reader)->manifest.tensors[0].name == "o");
  host.inputs["config.json"] = R"({"transformers_weights": "gone.safetensors"})";
  CHECK(outcome(host).find(
            "expected \"gone.safetensors\", which config.json names as transformers_weights") == 0);
  host.inputs["config.json"] = R"({"transformers_weights": "../model.safetensors"})";
  CHECK(outcome(host).find(
            "config.json: expected transformers_weights to be the name of a .safetensors file") ==
        0);
}

namespace {

// A rank's file of one tensor of bytes, which begins in the whole one there.
std::string rank_file(const std::string& shape, const std::string& begin, const std::string& data) {
  return file(R"({"__metadata__":{"DCP_SHARDING_INFO":"{\"w\":{\"saved_offsets\":)" + begin +
                  R"(}}","DCP_VERSION":"1.0"},)" + entry("w", "U8", shape, 0, data.size()) + "}",
              data);
}
std::string shard(int rank) { return cat("shard-0000", rank, "-model-00001-of-00001.safetensors"); }

}  // namespace

TEST_CASE("checkpoint: ranks' files of a distributed checkpoint are put together") {
  test::MemoryHost host;
  host.inputs[shard(1)] = rank_file("[2,2]", "[0,0]", "abef");
  host.inputs[shard(2)] = rank_file("[2,2]", "[0,2]", "cdgh");
  host.inputs[shard(3)] = rank_file("[1,4]", "[2,0]", "ijkl");
  {
    const auto reader = open(host);
    REQUIRE(reader);
    REQUIRE((*reader)->manifest.tensors.size() == 1);
    CHECK((*reader)->manifest.tensors[0].shape == std::vector<uint64_t>{3, 4});
    CHECK((*reader)->manifest.tensors[0].extents.size() == 3);
    CHECK(*(*reader)->read(0) == "abcdefghijkl");
    CHECK(*(*reader)->read(dense_range(0, 3, 6), 6) == "defghi");
    CHECK(host.logged(
        "the tensors of 3 files of a distributed checkpoint of torch are put together"));
  }
  host.inputs[shard(2)] = rank_file("[2,1]", "[0,2]", "cg");
  CHECK(outcome(host) ==
        "tensor \"w\": expected chunks that hold all 12 elements, found 10 in 3: the checkpoint "
        "lacks some");
  host.inputs[shard(2)] = rank_file("[2,2]", "[0,1]", "cdgh");
  CHECK(outcome(host).find("tensor \"w\": expected chunks side by side") == 0);
  host.inputs.erase(shard(2));
  CHECK(outcome(host) == cat("expected the files of all ranks, found none of shard-2 beside \"",
                             shard(3), "\": copy the whole folder"));
  host.inputs["model.safetensors"] = bytes_file({"x"});
  CHECK(outcome(host) == "accepted");
  host.named = shard(1);
  CHECK(outcome(host).find("which is one rank's part of a distributed checkpoint") !=
        std::string::npos);
}

TEST_CASE("checkpoint: what says that it was cut, and is whole") {
  test::MemoryHost host;
  host.inputs["model.safetensors"] = rank_file("[2,2]", "[0,0]", "abcd");
  const auto reader = open(host);
  REQUIRE(reader);
  CHECK(*(*reader)->read(0) == "abcd");
  CHECK((*reader)->manifest.source.metadata.size() == 1);
}

TEST_CASE("checkpoint: what ranks' files cannot say") {
  const auto with = [](const std::string& shape, const std::string& begin,
                       const std::string& data) {
    test::MemoryHost host;
    host.inputs["model.safetensors"] = rank_file(shape, begin, data);
    return outcome(host);
  };
  const std::string place = "model.safetensors: DCP_SHARDING_INFO: tensor \"w\": ";
  CHECK(with("[1]", "[0,0]", "a") ==
        place + "expected 1 saved_offsets, one for each dimension, found 2");
  CHECK(with("[1]", "[-1]", "a") ==
        place + "expected saved_offsets of 0 or more, found another value");
  CHECK(with("[1]", "7", "a") == place + "expected its saved_offsets, found none");
  CHECK(with("[1]", "[18446744073709551615]", "a").find("expected saved_offsets below 2^64") !=
        std::string::npos);
  CHECK(
      with("[1]", "[1]", "a") ==
      "tensor \"w\": expected chunks that hold all 2 elements, found 1 in 1: the checkpoint lacks "
      "some");
  CHECK(with("[1]", "[4611686018427387904]", "a").find("expected chunks that hold all") !=
        std::string::npos);
  CHECK(with("[0]", "[3]", "").find("expected chunks that hold all 3 elements, found 0") !=
        std::string::npos);
}

TEST_CASE("checkpoint: probing goes by names") {
  CHECK(test::probe_names({"config.json", "model.safetensors"}) == 100);
  CHECK(test::probe_names({"config.json", kIndexName, kShard1}) == 100);
  CHECK(test::probe_names({"weights.safetensors"}) == 75);
  CHECK(test::probe_names({kShard1, kShard2}) == 75);
  CHECK(test::probe_names({"diffusion_pytorch_model.safetensors", "x.safetensors"}) == 75);
  CHECK(test::probe_names({"a.safetensors", "b.safetensors"}) == 10);
  CHECK(test::probe_names({"pytorch_model.bin", "original/a.safetensors"}) == 0);
  CHECK(test::probe_names({}) == 0);
  CHECK(test::probe_names({shard(1), shard(2)}) == 75);
}
