// SPDX-License-Identifier: Apache-2.0
#include "plugins/reader_gguf/blocks.h"
#include "plugins/reader_gguf/checkpoint.h"
#include "plugins/reader_gguf/halves.h"
#include "plugins/reader_gguf/recipes_for_test.h"
#include "tests/support/plugin_checks.h"

#include <algorithm>
#include <bit>
#include <cstring>

using namespace crossdock;
using test::has;
using test::open;
using namespace crossdock::reader_gguf;
using namespace crossdock::reader_gguf::recipe;
using manifest::DType;

namespace {

std::vector<float> floats(const std::string& bytes) {
  std::vector<float> out(bytes.size() / 4);
  std::memcpy(out.data(), bytes.data(), out.size() * 4);
  return out;
}

std::vector<const GgmlType*> all_types() {
  std::vector<const GgmlType*> out;
  for (uint32_t id = 0; id < 64; ++id) {
    if (const GgmlType* type = find_type(id)) out.push_back(type);
  }
  return out;
}

}  // namespace

TEST_CASE("gguf: who it is, and how sure by names") {
  test::MemoryHost host;
  const xd_plugin_desc& desc = test::linked_plugin(host);
  CHECK(std::string(desc.id) == "org.crossdock.reader.gguf");
  CHECK(desc.caps == XD_CAP_CONCURRENT);
  const auto score = test::probe_names;
  CHECK(score({"a.gguf"}) == 60);
  CHECK(score({"a-Q4_K_M.gguf", "b.gguf", "README.md"}) == 60);
  CHECK(score({"model.safetensors", "x.bin"}) == 0);
  for (const char* name : {"a.gguf", "sha256-ab12", "x.bin"})
    CHECK(test::probe_file(name, "GGUF") == 90);
  CHECK(test::probe_file("a.gguf", "other") == 10);
  CHECK(test::probe_file("a.gguf", "") == 10);
  CHECK(test::probe_file("a.bin", "other") == 0);
}

TEST_CASE("gguf: which file of a folder") {
  const auto chosen = [](std::vector<std::string> names) {
    const auto r = choose_file(names);
    return r ? *r : r.error().message;
  };
  CHECK(has(chosen({"any.name"}), "found none"));
  CHECK(chosen({"README.md", "a.gguf", "mmproj-a.gguf"}) == "a.gguf");
  CHECK(chosen({"a-00001-of-00002.gguf", "a-00002-of-00002.gguf"}) == "a-00001-of-00002.gguf");
  CHECK(has(chosen({"a.gguf", "b.gguf"}),
            "expected one model in the folder, found \"a.gguf\", \"b.gguf\""));
  CHECK(has(chosen({"a-00002-of-00002.gguf", "x"}),
            "expected a .gguf file (the first of its parts)"));
  CHECK(part_names("m-00002-of-00003.gguf") == std::vector<std::string>{"m-00001-of-00003.gguf",
                                                                        "m-00002-of-00003.gguf",
                                                                        "m-00003-of-00003.gguf"});
  CHECK(part_names("m.gguf") == std::vector<std::string>{"m.gguf"});
  CHECK(part_names("m-00001-of-99999.gguf").size() == 1);
}

TEST_CASE("gguf: the manifest") {
  test::MemoryHost host;
  host.inputs["m.gguf"] = file({text_value("general.architecture", "llama"), u32_value("x", 7),
                                texts_value("t", {"a", "b\xff"})},
                               {{"q", {256, 2}, 12, some_bytes(288)},
                                {"f", {3}, 0, some_bytes(12)},
                                {"i", {2}, 26, some_bytes(8)},
                                {"h", {2}, 1, some_bytes(4)}});
  const auto reader = open(host);
  REQUIRE(reader);
  const manifest::Manifest& m = (*reader)->manifest;
  CHECK(m.source.format == "gguf/3");
  CHECK(*m.source.metadata[0].value.get<std::string>() == "llama");
  CHECK(*m.source.metadata[1].value.get<int64_t>() == 7);
  const auto& list = m.source.metadata[2].value.get<manifest::ValueList>()->values;
  CHECK(*list[0].get<std::string>() == "a");
  CHECK(list[1].get<manifest::Bytes>()->data == "b\xff");
  CHECK(m.tensors[0].dtype == DType::F32);
  CHECK(m.tensors[0].shape == std::vector<uint64_t>{2, 256});
  CHECK(m.tensors[0].encoding == "ggml/Q4_K");
  CHECK(m.tensors[0].extents[0].length == 288);
  CHECK(m.tensors[1].encoding.empty());
  CHECK(m.tensors[2].dtype == DType::I32);
  CHECK(m.tensors[3].encoding == "ggml/F16");
  const auto half = open(host, {{"dequant-dtype", "fp16"}});
  REQUIRE(half);
  CHECK((*half)->manifest.tensors[0].dtype == DType::F16);
  CHECK((*half)->manifest.tensors[1].dtype == DType::F32);
  CHECK((*half)->manifest.tensors[2].dtype == DType::I32);
  CHECK((*half)->manifest.tensors[3].encoding.empty());
}

// The values themselves are judged by gguf-py, in tests/interop/test_gguf.py.
TEST_CASE("gguf: any range of any type is that part of the whole, in any room") {
  for (const GgmlType* type : all_types()) {
    CAPTURE(type->name);
    test::MemoryHost host;
    const uint64_t n_blocks = type->block_elems == 1 ? 700 : 7, n = n_blocks * type->block_elems;
    host.inputs["m.gguf"] = file({}, {{"w", {n}, type->id, some_blocks(*type, n_blocks)}});
    for (const char* dtype : {"fp32", "bf16"}) {
      const auto reader = open(host, {{"dequant-dtype", dtype}});
      REQUIRE(reader);
      const uint64_t size = manifest::info((*reader)->manifest.tensors[0].dtype).bits / 8;
      const auto whole = (*reader)->read(0);
      REQUIRE(whole);
      CHECK(whole->size() == n * size);
      for (const auto& [begin, count] : {std::pair<uint64_t, uint64_t>{0, 1},
                                         {1, n - 2},
                                         {n - 1, 1},
                                         {n / 2 + 1, n / 3},
                                         {n, 0}}) {
        const auto part = (*reader)->read(dense_range(0, begin, count), count * size);
        REQUIRE(part);
        CHECK(*part == whole->substr(begin * size, count * size));
      }
      CHECK_FALSE((*reader)->read(dense_range(0, n, 1), size));
      CHECK_FALSE((*reader)->read(dense_range(0, UINT64_MAX, 2), 2 * size));
    }
  }
}

TEST_CASE("gguf: halves, every one, many at once as one at a time") {
  std::string halves;
  for (uint32_t h = 0; h < 65536; ++h) put_le(halves, static_cast<uint16_t>(h));
  const auto* in = reinterpret_cast<const uint8_t*>(halves.data());
  std::vector<float> values(65536);
  std::vector<uint16_t> rounded(65536);
  decode_f16(in, values.data(), values.size());
  f16_to_bf16(in, rounded.size(), reinterpret_cast<std::byte*>(rounded.data()));
  bool same = true;
  for (uint32_t h = 0; h < 65536; ++h) {
    const float one = blocks::from_f16(static_cast<uint16_t>(h));
    uint16_t one_rounded = 0;
    round_to_bf16(&one, 1, reinterpret_cast<std::byte*>(&one_rounded));
    same = same && std::memcmp(&one, &values[h], 4) == 0 && one_rounded == rounded[h];
  }
  CHECK(same);
  for (const uint64_t n : {0, 1, 7, 8, 15, 17}) {
    std::vector<float> part(n + 1, 5);
    decode_f16(in + 2 * 0x3c00, part.data(), n);
    CHECK(std::equal(part.begin(), part.end() - 1, values.begin() + 0x3c00));
    CHECK(part[n] == 5);
  }
}

TEST_CASE("gguf: rounding to 16 bits, many at once as one at a time") {
  // Bits of any kind, and those around each value's half way.
  std::vector<float> values;
  const std::string bytes = some_bytes(4 << 16);
  for (uint64_t i = 0; i < bytes.size(); i += 4) {
    uint32_t bits = 0;
    std::memcpy(&bits, &bytes[i], 4);
    const std::initializer_list<uint32_t> lows{bits & 0xffff, 0u,      0x7fffu, 0x8000u,
                                               0x8001u,       0x0fffu, 0x1000u, 0x1001u};
    for (const uint32_t low : lows)
      values.push_back(std::bit_cast<float>((bits & 0xffff0000) | low));
  }
  const auto differing = [&](auto round) {
    std::vector<uint16_t> all(values.size());
    round(values.data(), values.size(), reinterpret_cast<std::byte*>(all.data()));
    uint64_t out = 0;
    for (uint64_t i = 0; i < values.size(); ++i) {
      uint16_t one = 0;
      round(&values[i], 1, reinterpret_cast<std::byte*>(&one));
      out += one != all[i];
    }
    return out;
  };
  CHECK(differing(round_to_f16) == 0);
  CHECK(differing(round_to_bf16) == 0);
}

TEST_CASE("gguf: what is no GGUF is called by its name") {
  test::MemoryHost host;
  const auto message = [&](std::string bytes) {
    host.inputs["m.gguf"] = std::move(bytes);
    const auto reader = open(host);
    return reader ? "" : reader.error().message;
  };
  const std::string rest(100, '\0');
  for (const char* magic : {"lmgg", "fmgg", "tjgg"})
    CHECK(has(message(magic + rest),
              "found a ggml file of the time before GGUF: convert the original model again"));
  CHECK(has(message("algg" + rest), "found a ggml LoRA adapter of the time before GGUF"));
  CHECK(has(message("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
            "Git LFS pointer"));
  CHECK(has(message("PK\3\4" + rest), "a zip file, as torch.save writes"));
  CHECK(has(message("XXXX" + rest), "expected a GGUF file to begin with \"GGUF\", found \"XXXX\""));
}

TEST_CASE("gguf: what is stored as F32 stays so") {
  test::MemoryHost host;
  host.inputs["m.gguf"] = file({}, {{"w", {2}, 0, std::string("\1\2\3\x3f\5\6\7\x40")}});
  const auto reader = open(host, {{"dequant-dtype", "fp16"}});
  REQUIRE(reader);
  CHECK(*(*reader)->read(0) == "\1\2\3\x3f\5\6\7\x40");
}

TEST_CASE("gguf: a big-endian file is the little-endian one turned") {
  // Version, counts, lengths and values by hand: "GGUF", 3, 1 tensor, no values, "w", 1 dimension
  // of 2, F32, offset 0.
  const std::string header{
      "GGUF\0\0\0\3"
      "\0\0\0\0\0\0\0\1"
      "\0\0\0\0\0\0\0\0"
      "\0\0\0\0\0\0\0\1w"
      "\0\0\0\1"
      "\0\0\0\0\0\0\0\2"
      "\0\0\0\0"
      "\0\0\0\0\0\0\0\0",
      57};
  std::string bytes = header;
  bytes.resize(round_up(bytes.size(), 32));
  bytes += std::string("\x3f\x80\0\0\xc0\0\0\0", 8);
  test::MemoryHost host;
  host.inputs["m.gguf"] = bytes;
  const auto reader = open(host);
  REQUIRE(reader);
  CHECK(floats(*(*reader)->read(0)) == std::vector<float>{1, -2});
  CHECK(floats(*(*reader)->read(dense_range(0, 1, 1), 4)) == std::vector<float>{-2});
  bytes[8 + 16 + 9 + 4 + 8 + 3] = 3;  // Q4_1: the order of its bytes is nobody's
  bytes[8 + 16 + 9 + 4 + 7] = 32;
  host.inputs["m.gguf"] = bytes + std::string(64, '\0');
  const auto refused = open(host);
  REQUIRE_FALSE(refused);
  CHECK(has(refused.error().message, "in a big-endian file, found Q4_1 in tensor \"w\""));
}

TEST_CASE("gguf: every failing call of the host is passed on") {
  const auto run = [](test::MemoryHost& host) -> Result<std::string> {
    host.inputs["m.gguf"] = file({u32_value("x", 1)}, {{"w", {256}, 14, some_bytes(210)}});
    XD_TRY_SET(const auto reader, open(host));
    return reader->read(0);
  };
  test::check_every_fault(run);
}
