// SPDX-License-Identifier: Apache-2.0
#include "plugins/reader_bin/checkpoint.h"
#include "plugins/torch/read/recipes_for_test.h"
#include "tests/support/plugin_checks.h"

#include <atomic>
#include <thread>

using namespace crossdock;
using test::has;
using test::open;
using namespace crossdock::reader_bin;
using namespace crossdock::torch_read::recipe;
using manifest::DType;

namespace {

// The names in order, or the message of the refusal.
std::string names_in(test::MemoryHost& host, const test::OptionValues& options = {}) {
  const auto reader = open(host, options);
  if (!reader) return reader.error().message;
  std::string out;
  for (const auto& t : (*reader)->manifest.tensors) out += (out.empty() ? "" : " ") + t.name;
  return out;
}
std::string text_of(const Result<std::string>& result) {
  return result ? *result : result.error().message;
}

const std::string kTwo = tensor(storage("0", 2), 0, {2}, {1});  // of storage 0, "ABCDefgh"
const std::string kOne = tensor(storage("0", 2), 1, {1}, {1});

}  // namespace

TEST_CASE("bin: who it is") {
  test::MemoryHost host;
  const xd_plugin_desc& desc = test::linked_plugin(host);
  CHECK(std::string(desc.id) == "org.crossdock.reader.bin");
  CHECK(std::string(desc.formats[0]) == "bin");
  CHECK(desc.caps == XD_CAP_CONCURRENT);
}

TEST_CASE("bin: how sure it is, by names") {
  const auto score = test::probe_names;
  CHECK(score({"pytorch_model.bin", "config.json"}) == 80);
  CHECK(score({"pytorch_model.bin.index.json"}) == 80);
  CHECK(score({"x.pt"}) == 70);
  CHECK(score({"last.ckpt", "optimizer.pt", "rng_state_0.pth", "training_args.bin",
               "scheduler.pt"}) == 70);
  CHECK(score({"a.pt", "b.pt"}) == 8);
  CHECK(score({"original/consolidated.00.pth"}) == 0);
  CHECK(score({"model.safetensors"}) == 0);
  CHECK(score({"hf_model-1-of-2.pt", "hf_model-2-of-2.pt"}) == 70);
  CHECK(score({"diffusion_pytorch_model.bin", "a.pt"}) == 70);
}

TEST_CASE("bin: how sure it is of a file that the user named, by its first bytes") {
  const std::string value = dict({text("w"), kTwo});
  for (const char* name :
       {"model_best.pth.tar", "checkpoint", "x.bin", "x.safetensors", "OLD.PTH"}) {
    CAPTURE(name);
    CHECK(test::probe_file(name, torch_zip(value, {{"0", "ABCDefgh"}})) == 90);
    CHECK(test::probe_file(name, legacy_file(value, {{"0", "ABCDefgh"}})) == 90);
  }
  CHECK(test::probe_file("x.bin", "other bytes, and not few of them") == 10);
  CHECK(test::probe_file("x.bin", "") == 10);
  CHECK(test::probe_file("x", "other bytes, and not few of them") == 0);
  CHECK(test::probe_file("pytorch_model.bin.index.json", "{}") == 80);
  CHECK(test::probe_file("model.safetensors.index.json", "{}") == 0);
}

TEST_CASE("bin: a file that the user named is read, whatever lies beside it") {
  const auto outcome = [](const std::string& named, std::vector<std::string> beside = {}) {
    test::MemoryHost host;
    for (const std::string& name : beside)
      host.inputs[name] = torch_zip(dict({text("v"), kTwo}), {{"0", "ABCDefgh"}});
    host.inputs[named] = torch_zip(dict({text("w"), kTwo}), {{"0", "ABCDefgh"}});
    host.named = named;
    const auto reader = open(host);
    return reader ? (*reader)->manifest.tensors[0].name : reader.error().message;
  };
  CHECK(outcome("best", {"pytorch_model.bin", "x.pt"}) == "w");
  CHECK(outcome("consolidated.00.pth") == "w");
  CHECK(outcome("mp_rank_00_model_states.pt") == "w");
  CHECK(outcome("checkpoint-1.pt", {"checkpoint-2.pt"}) == "w");
  const std::string meta = outcome("consolidated.00.pth", {"consolidated.01.pth"});
  CHECK(meta.find("found consolidated.00.pth, one model-parallel part of a model in Meta's own "
                  "format (beside it lies "
                  "consolidated.01.pth): ") != std::string::npos);
  CHECK(outcome("consolidated.07.pth").find("found consolidated.07.pth, one model-parallel part") !=
        std::string::npos);
  CHECK(outcome("hf_model_0002_0.pt").find("torchtune") != std::string::npos);
  CHECK(outcome("hf_model_0001_0.pt", {"hf_model_0002_0.pt"}).find("torchtune") !=
        std::string::npos);
  CHECK(outcome("mp_rank_00_model_states.pt", {"mp_rank_01_model_states.pt"}).find("DeepSpeed") !=
        std::string::npos);
  for (const char* whole :
       {"model_rank_64.pt", "lora_merged_rank_8.pt", "hf_model_3b.pt", "consolidated.2024.pth",
        "rank_0.pt", "weights.00.safetensors", "checkpoint-shard0.pt"}) {
    CAPTURE(whole);
    CHECK(outcome(whole) == "w");
  }
  for (const char* part :
       {"bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt", "rank_1.pt",
        "consolidated.01.safetensors", "pytorch_model_fsdp_rank0.bin", "MODEL-00001-OF-00002.bin",
        "pytorch_model_1of2.bin", "model0-mp2.safetensors", "fp32.pt", "reshard-model_part-1.pt",
        "zero_pp_rank_0_mp_rank_00_model_states.pt", "model_world_size_2_rank_0.pt",
        "layer_00-model_00-model_states.pt", "model_optim_rng.pt", "m-1-of-2.pt",
        "m_1_of_02.bin"}) {
    CAPTURE(part);
    CHECK(outcome(part).find("expected a whole model, found") == 0);
  }
}

TEST_CASE("bin: a zip file, a legacy file, a deflated one, a big-endian one") {
  const std::string value = ordered_dict({text("b"), kOne, text("a"), kTwo});
  const auto check = [&](const std::string& bytes, const std::string& encoding,
                         const std::string& a, const std::string& b) {
    test::MemoryHost host;
    host.inputs["x.pt"] = bytes;
    const auto reader = open(host);
    REQUIRE(reader);
    const auto& m = (*reader)->manifest;
    REQUIRE(m.tensors.size() == 2);
    CHECK(m.tensors[0].name == "b");  // the state dict's order
    CHECK(m.tensors[0].encoding == encoding);
    CHECK(text_of((*reader)->read(0)) == b);
    CHECK(text_of((*reader)->read(1)) == a);
    CHECK(m.source.format == "bin");
  };
  check(torch_zip(value, {{"0", "ABCDefgh"}}), "", "ABCDefgh", "efgh");
  check(torch_zip(value, {{"0", "ABCDefgh"}}, false, ""), "", "ABCDefgh", "efgh");
  check(torch_zip(value, {{"0", "ABCDefgh"}}, true), "deflate", "ABCDefgh", "efgh");
  check(torch_zip(value, {{"0", "ABCDefgh"}}, false, "big"), "big-endian", "DCBAhgfe", "hgfe");
  check(torch_zip(value, {{"0", "ABCDefgh"}}, true, "big"), "deflate, big-endian", "DCBAhgfe",
        "hgfe");
  check(legacy_file(value, {{"0", "ABCDefgh"}}), "", "ABCDefgh", "efgh");
}

TEST_CASE("bin: where the bytes lie") {
  test::MemoryHost host;
  host.inputs["x.pt"] =
      torch_zip(dict({text("dense"), kOne, text("strided"), tensor(storage("1", 4), 1, {2}, {2}),
                      text("repeated"), tensor(storage("1", 4), 3, {3}, {0})}),
                {{"0", "ABCDefgh"}, {"1", "aaaabbbbccccdddd"}});
  const auto reader = open(host);
  REQUIRE(reader);
  const auto& t = (*reader)->manifest.tensors;
  const uint64_t first = host.inputs["x.pt"].find("ABCDefgh"),
                 second = host.inputs["x.pt"].find("aaaabbbb");
  CHECK(t[0].extents == std::vector<manifest::Extent>{{0, first + 4, 4}});
  CHECK(t[0].strides.empty());
  CHECK(t[1].extents == std::vector<manifest::Extent>{{0, second, 16}});
  CHECK(t[1].strides == std::vector<int64_t>{2});
  CHECK(t[1].storage_offset == 1);
  CHECK(text_of((*reader)->read(1)) == "bbbbdddd");
  CHECK(text_of((*reader)->read(2)) == "dddddddddddd");
  CHECK((*reader)->manifest.alias_groups.empty());
}

TEST_CASE("bin: tied names share a storage; parameters say whether they train") {
  test::MemoryHost host;
  const auto parameter = [](const std::string& t, const char* grad) {
    return call(global("torch._utils", "_rebuild_parameter"), {t, grad, ordered_dict({})});
  };
  host.inputs["x.pt"] = torch_zip(
      dict({text("embed"), kTwo, text("norm"), parameter(kOne, "\x89"), text("head"), kTwo,
            text("p"), parameter(tensor(storage("0", 2), 0, {1}, {1}), "\x88"), text("e"),
            tensor(storage("0", 2), 0, {0}, {1}), text("f"), tensor(storage("0", 2), 0, {0}, {1})}),
      {{"0", "ABCDefgh"}});
  const auto reader = open(host);
  REQUIRE(reader);
  const auto& m = (*reader)->manifest;
  REQUIRE(m.alias_groups.size() == 1);  // the empty ones share nothing
  CHECK(m.alias_groups[0].tensors == std::vector<uint64_t>{0, 2});
  CHECK(m.tensors[0].role == manifest::Role::kUnspecified);
  CHECK(m.tensors[1].role == manifest::Role::kParameter);
  CHECK(m.tensors[1].train == manifest::Training::kFrozen);
  CHECK(m.tensors[3].train == manifest::Training::kTrainable);
}

TEST_CASE("bin: storages that the file has not, or has of another size") {
  const auto zip_of = [](const std::vector<Stored>& storages) {
    test::MemoryHost host;
    host.inputs["x.pt"] = torch_zip(dict({text("w"), kTwo}), storages);
    return names_in(host);
  };
  CHECK(zip_of({{"0", "ABCDefgh"}}) == "w");
  CHECK(zip_of({{"1", "ABCDefgh"}}) ==
        "x.pt: tensor \"w\": expected the bytes of storage \"0\" in the file, found none");
  CHECK(has(zip_of({{"0", "ABCD"}}), "expected 8 bytes in storage \"0\", found 4"));
  CHECK(has(zip_of({{"0", "ABCDefghi"}}), "expected 8 bytes in storage \"0\", found 9"));
  const auto legacy_of = [](const std::vector<Stored>& storages, size_t elem_bytes = 4) {
    test::MemoryHost host;
    host.inputs["x.bin"] = legacy_file(dict({text("w"), kTwo}), storages, elem_bytes);
    return names_in(host);
  };
  CHECK(legacy_of({{"0", "ABCDefgh"}}) == "w");
  CHECK(has(legacy_of({}), "expected the bytes of storage \"0\" in the file, found none"));
  CHECK(has(legacy_of({{"0", "ABCDefgh"}, {"1", "abcd"}}),
            "expected storages that the pickle uses, each once, found \"1\""));
  CHECK(has(legacy_of({{"0", "ABCDefgh"}, {"0", "ABCDefgh"}}), "each once, found \"0\""));
  CHECK(has(legacy_of({{"0", "ABCD"}}), "expected 2 elements in storage \"0\", found 1"));
  CHECK(has(legacy_of({{"0", "ABCDefgh"}}, 2), "expected 2 elements in storage \"0\", found 4"));
}

TEST_CASE("bin: files of other kinds are told what they are") {
  const auto outcome = [](const std::string& bytes) {
    test::MemoryHost host;
    host.inputs["x.bin"] = bytes;
    return names_in(host);
  };
  CHECK(has(outcome(""), "found an empty file"));
  CHECK(has(outcome("hello"), "found other bytes"));
  CHECK(has(outcome("version https://git-lfs.github.com/spec/v1\n"), "a Git LFS pointer"));
  CHECK(has(outcome(std::string(257, '\0') + "ustar"), "a tar file of torch 0.1"));
  CHECK(has(outcome("GGUF\3\0\0\0"s), "use --from gguf"));
  CHECK(has(outcome("\x08\0\0\0\0\0\0\0{\"a\":1} "s), "what looks like safetensors"));
  CHECK(has(outcome(pickle(number(1))), "a pickle of another program: nothing was run"));
  CHECK(has(outcome(zip({{"a.txt", "x"}})), "a zip file without data.pkl"));
  CHECK(has(outcome(zip({{"m/data.pkl", pickle(dict({}))}, {"n/data.pkl", pickle(dict({}))}})),
            "expected one archive of torch.save, found two in one zip file, \"m/data.pkl\" and "
            "\"n/data.pkl\""));
  CHECK(has(outcome(zip({{"m/data.pkl", pickle(dict({}))}, {"__MACOSX/m/._data.pkl", "x"}})),
            "expected all records in the folder \"m/\", found \"__MACOSX/m/._data.pkl\""));
  CHECK(has(outcome(zip({{"m/constants.pkl", "x"}, {"m/data.pkl", "x"}})),
            "found a TorchScript module"));
  CHECK(has(outcome(zip({{"m/data.pkl", pickle(number(1)) + "x"}})),
            "data.pkl: expected its end at byte 5, found 1 bytes more"));
  CHECK(has(outcome(torch_zip(dict({}), {}, false, "middle")), "expected byteorder little or big"));
}

TEST_CASE("bin: every cut and every flipped bit of small files is refused or read, never worse") {
  const std::string value =
      ordered_dict({text("w"), tensor(storage("0", 2), 0, {2, 1}, {1, 2}), text("v"), kOne});
  for (const std::string& good :
       {torch_zip(value, {{"0", "ABCDefgh"}}), torch_zip(value, {{"0", "ABCDefgh"}}, true),
        legacy_file(value, {{"0", "ABCDefgh"}})}) {
    const auto attempt = [](const std::string& bytes) {
      test::MemoryHost host;
      host.inputs["x.bin"] = bytes;
      const auto reader = open(host);
      if (!reader) return !reader.error().message.empty();
      for (size_t i = 0; i < (*reader)->manifest.tensors.size(); ++i) (void)(*reader)->read(i);
      return false;
    };
    REQUIRE_FALSE(attempt(good));
    for (size_t n = 0; n < good.size(); ++n) {
      INFO(n);
      CHECK(attempt(good.substr(0, n)));
    }
    for (size_t bit = 0; bit < good.size() * 8; ++bit) {
      std::string bytes = good;
      bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ 1 << bit % 8);
      (void)attempt(bytes);
    }
  }
}

TEST_CASE("bin: legacy pickles longer than the first look") {
  std::string items;
  for (int i = 0; i < 60'000; ++i) items += text("a rather long name " + std::to_string(i)) + "N";
  test::MemoryHost host;
  host.inputs["x.bin"] = legacy_file("}(" + text("w") + kTwo + items + "u", {{"0", "ABCDefgh"}});
  CHECK(names_in(host) == "w");
}

TEST_CASE("bin: bytes behind a legacy file's last storage are told") {
  test::MemoryHost host;
  host.inputs["x.bin"] = legacy_file(dict({text("w"), kTwo}), {{"0", "ABCDefgh"}}) + "more";
  CHECK(names_in(host) == "w");
  CHECK(host.logged("found 4 bytes behind the last storage"));
}

TEST_CASE("bin: --verify-crc names the record") {
  std::vector<ZipRecord> records{{"a/data.pkl", pickle(dict({text("w"), kTwo}))},
                                 {"a/data/0", "ABCDefgh"}};
  test::MemoryHost host;
  host.inputs["x.pt"] = zip(records);
  CHECK(names_in(host, {{"verify-crc", "true"}}) == "w");
  records[1].crc_error = 1;
  host.inputs["x.pt"] = zip(records);
  CHECK(names_in(host) == "w");  // torch can leave them wrong on purpose
  CHECK(has(names_in(host, {{"verify-crc", "true"}}),
            "x.pt: expected record \"a/data/0\" to have the CRC"));
  host.inputs["x.pt"] = legacy_file(dict({text("w"), kTwo}), {{"0", "ABCDefgh"}});
  CHECK(names_in(host, {{"verify-crc", "true"}}) == "w");
  CHECK(host.logged("have no CRCs"));
}

TEST_CASE("bin: views that ask for more than there is") {
  const auto outcome = [](int64_t n, bool deflate, std::string data) {
    test::MemoryHost host;
    const auto elems = static_cast<int64_t>(data.size() / 4);
    host.inputs["x.pt"] =
        torch_zip(dict({text("w"), tensor(storage("0", elems), 0, {n, 2}, {0, 1})}),
                  {{"0", std::move(data)}}, deflate);
    return names_in(host);
  };
  CHECK(outcome(1 << 20, false, "ABCDefgh") == "w");
  CHECK(has(outcome(int64_t{1} << 40, false, "ABCDefgh"),
            "expected a view that repeats its values to have at most"));
  CHECK(has(outcome(2, true, std::string(65 << 20, '\0')),
            "expected a strided tensor to lie in a plain record"));
}

TEST_CASE("bin: shards and their index") {
  const auto shard = [](const std::string& name) {
    return torch_zip(ordered_dict({text(name), kTwo}), {{"0", "ABCDefgh"}});
  };
  test::MemoryHost host;
  host.inputs["pytorch_model-00001-of-00002.bin"] = shard("z");
  host.inputs["pytorch_model-00002-of-00002.bin"] = shard("a");
  host.inputs["pytorch_model.bin.index.json"] =
      R"({"metadata": {"total_size": 16}, "weight_map": {"a": "pytorch_model-00002-of-00002.bin", "z": "pytorch_model-00001-of-00002.bin"}})";
  host.inputs["config.json"] = R"({"model_type": "llama"})";
  CHECK(names_in(host) == "z a");
  host.inputs["pytorch_model-00002-of-00002.bin"] = shard("b");
  CHECK(has(names_in(host), "found it in no file"));
  host.inputs.erase("pytorch_model-00002-of-00002.bin");
  CHECK(has(names_in(host), "found 1 missing (pytorch_model-00002-of-00002.bin)"));
  host.inputs.erase("pytorch_model.bin.index.json");
  CHECK(has(names_in(host),
            "expected all 2 parts of a model, found 1 (pytorch_model-00001-of-00002.bin)"));
  host.inputs["pytorch_model.fp16.bin"] = shard("half");
  CHECK(names_in(host, {{"variant", "fp16"}}) == "half");
}

TEST_CASE("bin: ranges that are refused") {
  test::MemoryHost host;
  host.inputs["x.pt"] = torch_zip(dict({text("w"), kTwo}), {{"0", "ABCDefgh"}});
  const auto reader = open(host);
  REQUIRE(reader);
  const auto outcome = [&](const xd_range& range, uint64_t size) {
    return text_of((*reader)->read(range, size));
  };
  CHECK(outcome(dense_range(0, 1, 1), 4) == "efgh");
  CHECK(outcome(dense_range(0, 2, 0), 0).empty());
  CHECK(has(outcome(dense_range(1, 0, 1), 4), "expected one of 1 tensors, found index 1"));
  CHECK(has(outcome(dense_range(0, 0, 3), 12),
            "tensor \"w\": expected a range inside 2 elements, found 3 at 0"));
  CHECK(has(outcome(dense_range(0, 1, UINT64_MAX), 4), "expected a range inside 2 elements"));
  CHECK(has(outcome(dense_range(0, 0, 1), 8), "expected a buffer of 4 bytes, found 8"));
  CHECK(has(outcome(dense_range(0, 0, 1, DType::F64), 8), "casts are the host's"));
}

TEST_CASE(
    "bin: every call of the host that fails makes the run fail, with a message and without a "
    "leak") {
  const auto run = [](test::MemoryHost& host) -> Result<std::string> {
    host.inputs["pytorch_model.bin"] =
        torch_zip(dict({text("w"), tensor(storage("0", 2), 0, {2, 1}, {1, 5}), text("s"),
                        tensor(storage("1", 2), 0, {2, 2}, {1, 0})}),
                  {{"0", "ABCDefgh"}, {"1", "abcdefgh"}}, true);
    host.inputs["config.json"] = "{}";
    XD_TRY_SET(const auto reader, open(host, {{"verify-crc", "true"}}));
    XD_TRY(reader->read(0));
    return reader->read(1);
  };
  test::check_every_fault(run);
}

TEST_CASE("bin: reads from many threads, of deflated and strided tensors too") {
  std::string data(64 << 10, '\0');
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>(i * 7 >> 3);
  test::MemoryHost host;
  host.inputs["x.pt"] =
      torch_zip(dict({text("w"), tensor(storage("0", 16 << 10), 0, {16 << 10}, {1}), text("t"),
                      tensor(storage("0", 16 << 10), 0, {128, 128}, {1, 128})}),
                {{"0", data}}, true);
  const auto reader = open(host);
  REQUIRE(reader);
  const std::string t = text_of((*reader)->read(1));
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int k = 0; k < 5; ++k) {
        if (text_of((*reader)->read(0)) != data || text_of((*reader)->read(1)) != t) ++wrong;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(wrong == 0);
}
