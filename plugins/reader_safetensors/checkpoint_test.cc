#include "plugins/reader_safetensors/checkpoint.h"

#include "plugins/reader_safetensors/recipes_for_test.h"

using namespace crossdock;
using namespace crossdock::reader_safetensors;

namespace {

const char* const kIndexName = "model.safetensors.index.json";
const char* const kShard1 = "model-00001-of-00002.safetensors";
const char* const kShard2 = "model-00002-of-00002.safetensors";
const std::string kSaveAgain = ": the files are of different saves, download or save the model again";

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

std::string outcome_of(const std::vector<std::string>& names, const test::OptionValues& options = {}) {
  test::MemoryHost host;
  for (const std::string& name : names) host.inputs[name] = name.ends_with(".safetensors") ? bytes_file({"w"}) : "{}";
  const auto reader = open(host, options);
  return reader ? (*reader)->manifest.source.files[0].name : reader.error().message;
}

int score_of(const std::vector<std::string>& names) {
  test::MemoryHost host;
  for (const std::string& name : names) host.inputs[name] = "";
  return test::probe(host, test::linked_plugin(host));
}

}  // namespace

TEST_CASE("checkpoint: which file opens the model") {
  CHECK(outcome_of({"model.safetensors", "config.json"}) == "model.safetensors");
  CHECK(outcome_of({"anything.safetensors"}) == "anything.safetensors");
  CHECK(outcome_of({"config.json", "pytorch_model.safetensors"}) == "pytorch_model.safetensors");
  CHECK(outcome_of({"model.safetensors", "consolidated.safetensors"}) == "model.safetensors");
  CHECK(outcome_of({"model.safetensors", "original/a.safetensors", "original/b.safetensors"}) == "model.safetensors");
  CHECK(outcome_of({"model-00001-of-00001.safetensors"}) == "model-00001-of-00001.safetensors");
  CHECK(outcome_of({"model.safetensors", "model.fp16.safetensors"}, {{"variant", "fp16"}}) == "model.fp16.safetensors");
}

TEST_CASE("checkpoint: inputs without a model") {
  CHECK(outcome_of({"config.json", "original/model.safetensors"}) ==
        "expected model.safetensors or model.safetensors.index.json, found no .safetensors file: name the model's "
        "folder");
  CHECK(outcome_of({kShard1}) == cat("expected a whole model, found ", kShard1,
                                     ", which is one part of 2: name the folder that holds all parts and "
                                     "model.safetensors.index.json"));
  CHECK(outcome_of({kShard2, "config.json"}) ==
        cat("expected a whole model, found ", kShard2,
            ", which is one part of 2: download the other parts and model.safetensors.index.json"));
  CHECK(outcome_of({kShard1, kShard2, "config.json"}) ==
        cat("expected model.safetensors, or model.safetensors.index.json to say which tensor is where, found 2 files "
            "without it (",
            kShard1, ", ", kShard2, "): download the index too, name one of the files, or choose by --variant"));
  std::vector<std::string> many;
  for (int i = 10; i < 22; ++i) many.push_back(cat("m", i, ".safetensors"));
  CHECK(outcome_of(many).find("found 12 files without it (m10.safetensors, ") != std::string::npos);
  CHECK(outcome_of(many).find("m17.safetensors and 4 more)") != std::string::npos);
  CHECK(outcome_of({"model.safetensors"}, {{"variant", "fp16"}}) ==
        "expected model.fp16.safetensors or model.safetensors.index.fp16.json, found model.safetensors: give another "
        "--variant, or none");
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
  host.inputs["config.json"] = R"({"tie_word_embeddings": true, "time_step_limit": [0.0, Infinity]})";
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
  CHECK(m.source.config.get<manifest::ValueMap>()->find("tie_word_embeddings")->kind == manifest::Value{true}.kind);
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
  for (const char* name : {"model.safetensors.index.fp16.json", "model.fp16.safetensors.index.json"}) {
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

TEST_CASE("checkpoint: the index and the shards agree both ways") {
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
  CHECK(with_index({{"x", kShard1}, {"y", kShard2}, {"z", kShard2}}) ==
        cat(place, "expected tensor \"y\" in ", kShard2, ", found it in ", kShard1, kSaveAgain));
  CHECK(with_index({{"x", kShard1}, {"z", kShard2}}) ==
        cat(place, "expected the index to list every tensor, found \"y\" of ", kShard1, " not in it", kSaveAgain));
  CHECK(with_index({{"y", kShard1}, {"z", kShard2}}) ==
        cat(place, "expected the index to list every tensor, found \"x\" of ", kShard1, " not in it", kSaveAgain));
  CHECK(with_index({{"x", kShard1}, {"y", kShard1}, {"zz", kShard2}}) ==
        cat(place, "expected the index to list every tensor, found \"z\" of ", kShard2, " not in it", kSaveAgain));
  CHECK(with_index({{"x", kShard1}, {"y", kShard1}, {"z", "gone.safetensors"}}) ==
        cat(place,
            "expected all 2 files that it lists beside it, found 1 missing (gone.safetensors): name the folder that "
            "holds them, or run "
            "`hf download` again"));
  host.inputs[kShard2] = bytes_file({"z", "x"});
  CHECK(with_index({{"x", kShard1}, {"y", kShard1}, {"z", kShard2}}) ==
        cat(place, "expected tensor \"x\" in one file, found it in ", kShard1, " and ", kShard2, kSaveAgain));
}

TEST_CASE("checkpoint: a tensor in the right file and in another") {
  test::MemoryHost host;
  sharded(host);
  host.inputs[kShard1] = bytes_file({"x", "y", "z"});
  CHECK(outcome(host) ==
        cat(kIndexName, ": expected tensor \"z\" in one file, found it in ", kShard1, " and ", kShard2, kSaveAgain));
}

TEST_CASE("checkpoint: the index alone") {
  test::MemoryHost host;
  host.inputs[kIndexName] = index_of({{"x", kShard1}, {"z", kShard2}});
  CHECK(outcome(host).find(cat(kIndexName, ": expected all 2 files that it lists beside it, found 2 missing (", kShard1,
                               ", ", kShard2, ")")) == 0);
}

TEST_CASE("checkpoint: what the index may not say") {
  test::MemoryHost host;
  sharded(host);
  host.inputs[kIndexName] = index_of({{"x", "../x.safetensors"}});
  CHECK(outcome(host) ==
        cat(kIndexName,
            ": tensor \"x\": expected the relative name of a shard in this folder, found \"../x.safetensors\""));
  host.inputs[kIndexName] = index_of({});
  CHECK(outcome(host) ==
        cat(kIndexName, ": expected tensors in \"weight_map\", found none: download or save the index again"));
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
  CHECK(host.logs[0].second == cat(kIndexName,
                                   ": its total_size is 4, but the tensors have 3 bytes; every tensor is where the "
                                   "index says, so this is ignored"));
}

TEST_CASE("checkpoint: a broken shard is named") {
  test::MemoryHost host;
  sharded(host);
  host.inputs[kShard2].pop_back();
  CHECK(outcome(host) == cat(kShard2,
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

TEST_CASE("checkpoint: probing goes by names") {
  CHECK(score_of({"config.json", "model.safetensors"}) == 100);
  CHECK(score_of({"config.json", kIndexName, kShard1}) == 100);
  CHECK(score_of({"weights.safetensors"}) == 90);
  CHECK(score_of({"a.safetensors", "b.safetensors"}) == 10);
  CHECK(score_of({"pytorch_model.bin", "original/a.safetensors"}) == 0);
  CHECK(score_of({}) == 0);
}
