// SPDX-License-Identifier: Apache-2.0

// How files are split, headed, indexed and cut. That the libraries read them the interop tests
// show.
#include "plugins/writer_safetensors/layout.h"

#include <string>
#include <vector>

#include "plugins/common/infinities.h"
#include "plugins/writer_safetensors/items.h"
#include "plugins/writer_safetensors/json_string.h"
#include "tests/catch.h"

using namespace crossdock;
using namespace crossdock::writer_safetensors;
using manifest::DType;
using manifest::Manifest;

namespace {

void add(Manifest& model, const std::string& name, DType dtype, std::vector<uint64_t> shape) {
  auto& tensor = model.tensors.emplace_back();
  tensor.name = name;
  tensor.dtype = dtype;
  tensor.shape = std::move(shape);
  tensor.role = manifest::Role::kParameter;
}

std::vector<File> files_of(const Manifest& model, uint64_t shard_bytes,
                           DType dtype = DType::UNSPECIFIED) {
  auto files = make_files(model, {{dtype, false}, shard_bytes});
  if (!files) throw std::runtime_error(files.error().message);
  return *std::move(files);
}

// The sizes of tensors in each file.
std::vector<std::vector<uint64_t>> sizes(const std::vector<File>& files) {
  std::vector<std::vector<uint64_t>> out;
  for (const File& file : files) {
    auto& one = out.emplace_back();
    for (const Written& t : file.tensors) one.push_back(t.n_bytes);
  }
  return out;
}

std::string refusal(const Manifest& model) {
  const auto files = make_files(model, {{}, 100});
  return files ? "" : files.error().message;
}

}  // namespace

TEST_CASE("shards are cut as huggingface_hub does") {
  // The example of its documentation, and a tensor above the limit, which comes first.
  Manifest model;
  int n = 0;
  for (const uint64_t size : {6, 6, 2, 6, 2, 2}) add(model, cat("t", n++), DType::U8, {size});
  using Sizes = std::vector<std::vector<uint64_t>>;
  CHECK(sizes(files_of(model, 10)) == Sizes{{6}, {6, 2}, {6, 2, 2}});
  CHECK(sizes(files_of(model, 6)) == Sizes{{6}, {6}, {2}, {6}, {2, 2}});
  CHECK(sizes(files_of(model, 5)) == Sizes{{6}, {6}, {6}, {2, 2}, {2}});
  const auto one = files_of(model, 24);
  REQUIRE(one.size() == 1);
  CHECK(one[0].name == "model.safetensors");
  CHECK(files_of(model, 10)[1].name == "model-00002-of-00003.safetensors");
}

TEST_CASE("larger elements come first, else the source's order holds; so every tensor is aligned") {
  Manifest model;
  add(model, "byte", DType::U8, {3});
  add(model, "z", DType::BF16, {1});
  add(model, "wide", DType::I64, {1});
  add(model, "a", DType::F16, {5});
  add(model, "codes", DType::F4, {4});
  add(model, "none", DType::F64, {0, 7});
  add(model, "f", DType::F32, {});
  const auto files = files_of(model, 1000);
  std::vector<uint64_t> order;
  for (const Written& t : files[0].tensors) {
    order.push_back(t.tensor);
    const uint64_t bits = manifest::info(t.dtype).bits;
    if (bits >= 8) CHECK((files[0].head_bytes + t.offset) % (bits / 8) == 0);
  }
  CHECK(order == std::vector<uint64_t>{2, 5, 6, 1, 3, 0, 4});
  CHECK(files[0].data_bytes == 8 + 0 + 4 + 2 + 10 + 3 + 2);
}

TEST_CASE("the header") {
  Manifest model;
  add(model, "a\"\\\n\x01\x7fä", DType::BF16, {2, 3});
  add(model, "s", DType::F32, {});
  const auto files = files_of(model, 1000);
  const std::string text = head(files[0], model);
  CHECK(text.size() % 8 == 0);
  CHECK(Cursor(as_bytes(text)).le<uint64_t>() == text.size() - 8);
  std::string want =
      R"({"__metadata__":{"format":"pt"},"s":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"a\"\\\n\u0001)"
      "\x7f"
      R"(ä":{"dtype":"BF16","shape":[2,3],"data_offsets":[4,16]}})";
  want.resize(text.size() - 8, ' ');
  CHECK(text.substr(8) == want);
}

TEST_CASE("JSON strings") {
  CHECK(json_string("aä\b\f\r\t/", Escapes::kNeeded) == "\"aä\\b\\f\\r\\t/\"");
  CHECK(json_string("ä€😀\x7f", Escapes::kBeyondAscii) ==
        R"("\u00e4\u20ac\ud83d\ude00\u007f")");  // json.dumps of Python 3.11
}

TEST_CASE("the index") {
  Manifest model;
  add(model, "b", DType::BF16, {4});
  add(model, "ä", DType::BF16, {4});
  add(model, "ids", DType::I64, {1});
  model.tensors[2].role = manifest::Role::kBuffer;
  CHECK(index_text(files_of(model, 8), model) == R"({
  "metadata": {
    "total_parameters": 8,
    "total_size": 24
  },
  "weight_map": {
    "b": "model-00001-of-00003.safetensors",
    "ids": "model-00003-of-00003.safetensors",
    "\u00e4": "model-00002-of-00003.safetensors"
  }
}
)");
}

TEST_CASE("what the format does not have") {
  Manifest model;
  add(model, "c", DType::C128, {2});
  CHECK(refusal(model) ==
        "tensor \"c\": expected an element type that safetensors has, found C128: save it as C64 "
        "in the source, or as two real tensors");
  model.tensors[0].excluded = "no";
  CHECK(refusal(model).empty());
  add(model, "n", DType::F32, {2});
  model.tensors[1].target_name = "__metadata__";
  CHECK(refusal(model).starts_with("tensor \"n\": expected a name that safetensors can have"));
  model.tensors[1].target_name = std::string(100'000'000, 'n');
  CHECK(refusal(model).find("expected a header of at most 100000000 bytes in model.safetensors, "
                            "found 1000") != std::string::npos);
  model.tensors[1] = {};
  model.tensors[1].name = "half";
  model.tensors[1].dtype = DType::F4;
  model.tensors[1].shape = {3};
  CHECK(refusal(model).find("whole bytes") != std::string::npos);
  model.tensors[1].shape = {uint64_t{1} << 62, 4};
  CHECK(refusal(model).find("2^64") != std::string::npos);
}

TEST_CASE("items: edges between tensors, large ones cut inside on whole bytes") {
  Manifest model;
  add(model, "big", DType::F32, {5});
  add(model, "a", DType::F16, {2});
  add(model, "b", DType::F16, {4});
  add(model, "codes", DType::F6_E2M3, {12});  // 9 bytes, 4 elements in three
  const auto files = files_of(model, 1000);
  struct Flat {
    size_t tensor;
    uint64_t begin, count;
    bool operator==(const Flat&) const = default;
  };
  std::vector<std::vector<Flat>> parts;
  uint64_t at = 0;
  for (const Item& item : cut(files[0], 8)) {
    CHECK(item.begin == at);
    CHECK(item.n_bytes <= 8);
    at += item.n_bytes;
    auto& one = parts.emplace_back();
    for (const Part& part : item.parts) one.push_back({part.tensor, part.begin, part.count});
  }
  CHECK(at == files[0].data_bytes);
  CHECK((parts == std::vector<std::vector<Flat>>{{{0, 0, 2}},
                                                 {{0, 2, 2}},
                                                 {{0, 4, 1}, {1, 0, 2}},
                                                 {{2, 0, 4}},
                                                 {{3, 0, 8}},
                                                 {{3, 8, 4}}}));
  CHECK(cut(files[0]).size() == 1);
}

TEST_CASE("results of items") {
  CHECK(encode(common::Overflow{}).empty());
  const std::string one = encode(common::Overflow{3, 7}), two = encode(common::Overflow{5, 2});
  const std::vector<std::string_view> results{"", one, "", two};
  const auto all = joined(results);
  REQUIRE(all);
  CHECK(all->n_values == 8);
  CHECK(all->first == 7);
  const std::vector<std::string_view> broken{"abc"};
  CHECK(joined(broken).error().code == XD_INTERNAL);
}

TEST_CASE("infinities of each type") {
  const auto count = [](DType dtype, auto... bits) {
    std::string raw;
    (put_le(raw, bits), ...);
    return common::count_infinities(as_bytes(raw), dtype);
  };
  CHECK(count(DType::F16, uint16_t{0x7c00}, uint16_t{0xfc00}, uint16_t{0x7c01}, uint16_t{0x7bff}) ==
        2);
  CHECK(count(DType::BF16, uint16_t{0x7f80}, uint16_t{0xff80}, uint16_t{0x7fc0},
              uint16_t{0x7f7f}) == 2);
  CHECK(count(DType::F32, 0x7f800000u, 0xff800000u, 0x7f800001u, 0x7f7fffffu) == 2);
  CHECK(count(DType::F64, uint64_t{0x7ff0000000000000}, uint64_t{0xfff0000000000000},
              uint64_t{0x7ff8000000000000}) == 2);
  CHECK(count(DType::I64, uint64_t{0x7ff0000000000000}) == 0);
}
