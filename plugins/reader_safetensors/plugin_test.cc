// SPDX-License-Identifier: Apache-2.0
#include "plugins/reader_safetensors/recipes_for_test.h"

#include <atomic>
#include <thread>

using namespace crossdock;
using namespace crossdock::reader_safetensors;

namespace {

std::string text_of(const Result<std::string>& result) {
  return result ? *result : result.error().message;
}

// a: I16 [2,2]; f: F4 [4]; n: F32 [0].
void small_model(test::MemoryHost& host) {
  host.inputs["model.safetensors"] =
      file("{" + entry("a", "I16", "[2,2]", 0, 8) + "," + entry("f", "F4", "[4]", 8, 10) + "," +
               entry("n", "F32", "[0]", 10, 10) + "}",
           "AaBbCcDdFf");
}

}  // namespace

TEST_CASE("plugin: who it is") {
  test::MemoryHost host;
  const xd_plugin_desc& desc = test::linked_plugin(host);
  CHECK(std::string(desc.id) == "org.crossdock.reader.safetensors");
  CHECK(std::string(desc.formats[0]) == "safetensors");
  CHECK(desc.kind == XD_READER);
  CHECK(desc.caps == XD_CAP_CONCURRENT);
  CHECK_FALSE(desc.writer);
}

TEST_CASE("plugin: ranges of a tensor, each by one read of the file") {
  test::MemoryHost host;
  small_model(host);
  const auto reader = open(host);
  REQUIRE(reader);
  const uint64_t reads = host.reads;
  CHECK(text_of((*reader)->read(0)) == "AaBbCcDd");
  CHECK(host.reads == reads + 1);
  CHECK(text_of((*reader)->read(dense_range(0, 1, 2), 4)) == "BbCc");
  CHECK(text_of((*reader)->read(dense_range(0, 1, 2, manifest::DType::I16), 4)) == "BbCc");
  CHECK(text_of((*reader)->read(dense_range(1, 2, 2), 1)) == "f");
  CHECK(host.reads == reads + 4);
}

TEST_CASE("plugin: empty ranges read nothing") {
  test::MemoryHost host;
  small_model(host);
  const auto reader = open(host);
  REQUIRE(reader);
  const uint64_t reads = host.reads;
  CHECK((*reader)->read(dense_range(0, 4, 0), 0));
  CHECK((*reader)->read(dense_range(2, 0, 0), 0));
  CHECK(host.reads == reads);
}

TEST_CASE("plugin: ranges that are refused") {
  test::MemoryHost host;
  small_model(host);
  const auto reader = open(host);
  REQUIRE(reader);
  const auto outcome = [&](const xd_range& range, uint64_t size) {
    const auto result = (*reader)->read(range, size);
    return result ? "accepted" : cat(result.error().code, " ", result.error().message);
  };
  const std::string out_of_range = cat(int{XD_OUT_OF_RANGE}, " ");
  const std::string invalid = cat(int{XD_INVALID_ARGUMENT}, " ");
  CHECK(outcome(dense_range(3, 0, 1), 1) ==
        out_of_range + "expected one of 3 tensors, found index 3");
  CHECK(outcome(dense_range(0, 0, 5), 10) ==
        out_of_range + "tensor \"a\": expected a range inside 4 elements, found 5 at 0");
  CHECK(outcome(dense_range(0, 5, 0), 0) ==
        out_of_range + "tensor \"a\": expected a range inside 4 elements, found 0 at 5");
  CHECK(outcome(dense_range(0, 1, UINT64_MAX), 0) ==
        out_of_range +
            cat("tensor \"a\": expected a range inside 4 elements, found ", UINT64_MAX, " at 1"));
  CHECK(outcome(dense_range(0, 0, 1), 1) ==
        invalid + "tensor \"a\": expected a buffer of 2 bytes, found 1");
  CHECK(outcome(dense_range(0, 0, 1, manifest::DType::F32), 4) ==
        invalid +
            "tensor \"a\": expected to be asked for I16, found dtype 12: casts are the host's");
  CHECK(outcome(dense_range(1, 1, 2), 1) == invalid +
                                                "tensor \"f\": expected a range of F4 elements "
                                                "that begins and ends with a byte, found 2 at 1");
  CHECK(outcome(dense_range(1, 0, 3), 1) == invalid +
                                                "tensor \"f\": expected a range of F4 elements "
                                                "that begins and ends with a byte, found 3 at 0");
}

TEST_CASE("plugin: a file that becomes shorter is an error, not a crash") {
  test::MemoryHost host;
  small_model(host);
  const auto reader = open(host);
  REQUIRE(reader);
  host.inputs["model.safetensors"].resize(20);
  CHECK(text_of((*reader)->read(0)).find("of \"model.safetensors\": it has only 20") !=
        std::string::npos);
}

TEST_CASE("plugin: offsets beyond 4 GiB") {
  test::MemoryHost host;
  const uint64_t n = 5'000'000'000;
  const std::string header = file("{" + entry("a", "U8", cat("[", n, "]"), 0, n) + "," +
                                  entry("b", "U8", "[1]", n, n + 1) + "}");
  host.inputs["model.safetensors"] = header;
  host.input_sizes["model.safetensors"] = header.size() + n + 1;  // zeros, not stored
  const auto reader = open(host);
  REQUIRE(reader);
  CHECK((*reader)->manifest.tensors[1].extents[0].offset == header.size() + n);
  CHECK(text_of((*reader)->read(1)) == std::string(1, '\0'));
}

TEST_CASE(
    "plugin: every call of the host that fails makes the run fail, with a message and without a "
    "leak") {
  const auto run = [](test::MemoryHost& host) -> Result<std::string> {
    host.inputs["a.safetensors"] = bytes_file({"x"});
    host.inputs["b.safetensors"] = bytes_file({"y"});
    host.inputs["model.safetensors.index.json"] =
        R"({"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}})";
    host.inputs["config.json"] = R"({"model_type": "llama"})";
    XD_TRY_SET(const auto reader, open(host));
    return reader->read(1);
  };
  test::MemoryHost good;
  REQUIRE(text_of(run(good)) == "a");
  CHECK(test::check_every_fault(run) > 15);
}

TEST_CASE("plugin: reads from many threads") {
  test::MemoryHost host;
  small_model(host);
  const auto reader = open(host);
  REQUIRE(reader);
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (uint64_t i = 0; i < 200; ++i) {
        const auto got = (*reader)->read(dense_range(0, i % 4, 1), 2);
        if (!got || *got != std::string("AaBbCcDd").substr(i % 4 * 2, 2)) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
}

TEST_CASE("plugin: an index of 100,000 tensors") {
  constexpr int kShards = 4, kTensors = 25'000;
  test::MemoryHost host;
  std::string index;
  for (int s = 0; s < kShards; ++s) {
    const std::string shard = cat("model-0000", s + 1, "-of-00004.safetensors");
    std::string header;
    for (int t = 0; t < kTensors; ++t) {
      const std::string name =
          cat("model.layers.", s * kTensors + t, ".mlp.experts.down_proj.weight");
      header += (t == 0 ? "" : ",") + entry(name, "BF16", "[1,1]", 2 * t, 2 * t + 2);
      index += cat(index.empty() ? "" : ",", "\"", name, "\":\"", shard, "\"");
    }
    host.inputs[shard] = file("{" + header + "}", std::string(2 * kTensors, 'x'));
  }
  host.inputs["model.safetensors.index.json"] = "{\"weight_map\":{" + index + "}}";
  const auto reader = open(host);
  REQUIRE(reader);
  CHECK((*reader)->manifest.tensors.size() == kShards * kTensors);
  CHECK(host.peak_allocated < 15 * host.inputs["model.safetensors.index.json"].size() +
                                  1000);  // with the parser's  // one text at a time
}
