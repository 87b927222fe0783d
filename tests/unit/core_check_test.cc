// SPDX-License-Identifier: Apache-2.0
#include "core/model/check.h"

#include "tests/unit/core_test_support.h"

using namespace crossdock;
using namespace crossdock::test;
using manifest::DType;
using manifest::Manifest;
using manifest::Tensor;

namespace {

// One good tensor "w", F32 [2, 3], in the second half of a file of 48 bytes.
Manifest good() {
  Manifest m;
  m.source.files.push_back({"model.bin", 48, ""});
  Tensor t = tensor("w", DType::F32, {2, 3});
  t.extents = {{0, 24, 24}};
  m.tensors.push_back(t);
  return m;
}

// The check's verdict on the good manifest, changed.
std::string verdict(const std::function<void(Manifest&)>& change) {
  Manifest m = good();
  change(m);
  const auto result = model::check(m);
  return result ? "accepted" : result.error().message;
}
std::string verdict_of_tensor(const std::function<void(Tensor&)>& change) {
  return verdict([&](Manifest& m) { change(m.tensors[0]); });
}

}  // namespace

TEST_CASE("a good manifest passes") {
  CHECK(verdict([](Manifest&) {}) == "accepted");
  CHECK(verdict([](Manifest& m) { m.tensors.clear(); }) == "accepted");
}

TEST_CASE("a manifest of another version is refused") {
  CHECK(verdict([](Manifest& m) { m.schema_version = 2; }) ==
        "expected manifest version 1, found 2: update crossdock");
  CHECK(verdict([](Manifest& m) { m.schema_version = 0; }) ==
        "expected manifest version 1, found 0: update crossdock");
}

TEST_CASE("text must be UTF-8 wherever it stands") {
  const std::string bad = "a\xFF";
  CHECK(verdict_of_tensor([&](Tensor& t) { t.name = bad; }) ==
        "tensor \"a\\xff\": expected UTF-8 in a tensor's name, found \"a\\xff\"");
  CHECK(contains(verdict_of_tensor([&](Tensor& t) { t.target_name = bad; }),
                 "expected UTF-8 in a tensor's name"));
  CHECK(contains(verdict_of_tensor([&](Tensor& t) { t.encoding = bad; }),
                 "expected UTF-8 in an encoding"));
  CHECK(contains(verdict([&](Manifest& m) { m.source.files[0].name = bad; }),
                 "expected UTF-8 in a file's name"));
  CHECK(contains(verdict([&](Manifest& m) { m.source.format = bad; }),
                 "expected UTF-8 in the format"));
  CHECK(contains(verdict([&](Manifest& m) {
                   m.aux_files.push_back({{}, bad, {}});
                 }),
                 "an auxiliary file's name"));
  CHECK(contains(verdict([&](Manifest& m) {
                   m.aux_files.push_back({{}, "a", bad});
                 }),
                 "the name of an auxiliary file's content"));
  CHECK(contains(verdict_of_tensor([&](Tensor& t) { t.excluded = bad; }),
                 "expected UTF-8 in a reason to exclude it"));
  CHECK(contains(verdict([&](Manifest& m) { m.source.files[0].digest = bad; }),
                 "expected UTF-8 in a file's digest"));
  for (const manifest::Provenance& step :
       {manifest::Provenance{bad, "", ""}, {"", bad, ""}, {"", "", bad}}) {
    CHECK(contains(verdict([&](Manifest& m) { m.provenance = {step}; }),
                   "expected UTF-8 in the provenance"));
  }
  CHECK(contains(verdict([&](Manifest& m) { m.training.optimizer = bad; }),
                 "expected UTF-8 in the optimizer's name"));
  CHECK(contains(verdict([&](Manifest& m) {
                   m.training.moments = {{bad, 0, 0}};
                 }),
                 "expected UTF-8 in a moment's kind"));
  CHECK(contains(verdict([&](Manifest& m) {
                   m.source.metadata.push_back({bad, {}});
                 }),
                 "expected UTF-8 in a metadata key"));
  CHECK(contains(verdict([&](Manifest& m) {
                   m.source.metadata.push_back({"k", {bad}});
                 }),
                 "expected UTF-8 in metadata"));
  manifest::ValueMap map;
  map.entries.push_back({bad, {}});
  CHECK(contains(verdict([&](Manifest& m) { m.source.config.kind = map; }),
                 "expected UTF-8 in a metadata key"));
  manifest::ValueList list;
  list.values.push_back({bad});
  CHECK(contains(verdict([&](Manifest& m) { m.source.config.kind = list; }),
                 "expected UTF-8 in metadata"));
  CHECK(verdict([&](Manifest& m) { m.source.config.kind = manifest::Bytes{bad}; }) ==
        "accepted");  // not text
}

TEST_CASE("metadata is nested to a limit") {
  manifest::Value nested{std::string("leaf")};
  for (int i = 0; i < 200; ++i) nested = {manifest::ValueList{{nested}}};
  CHECK(verdict([&](Manifest& m) { m.source.config = nested; }) == "metadata nested too deep");
}

TEST_CASE("names are unique and of a bounded length") {
  CHECK(verdict([](Manifest& m) { m.tensors.push_back(m.tensors[0]); }) ==
        "expected each tensor once, found \"w\" twice");
  CHECK(contains(verdict_of_tensor([](Tensor& t) { t.name.assign(65'537, 'n'); }),
                 "expected a name of at most 65536 bytes, found 65537"));
  CHECK(verdict_of_tensor([](Tensor& t) { t.name.assign(65'536, 'n'); }) == "accepted");
}

TEST_CASE("a name in a message cannot drive a terminal") {
  CHECK(contains(verdict_of_tensor([](Tensor& t) {
                   t.name = "\x1b[2J";
                   t.dtype = DType::UNSPECIFIED;
                 }),
                 "tensor \"\\x1b[2J\": "));
}

TEST_CASE("element types are known") {
  CHECK(verdict_of_tensor([](Tensor& t) { t.dtype = DType::UNSPECIFIED; }) ==
        "tensor \"w\": expected a known element type, found number 0");
  CHECK(verdict_of_tensor([](Tensor& t) { t.dtype = static_cast<DType>(99); }) ==
        "tensor \"w\": expected a known element type, found number 99");
}

TEST_CASE("shapes do not overflow") {
  CHECK(contains(verdict_of_tensor([](Tensor& t) { t.shape.assign(65, 1); }),
                 "expected at most 64 dimensions, found 65"));
  CHECK(verdict_of_tensor([](Tensor& t) { t.shape.assign(64, 1); }) == "accepted");
  for (const auto& shape : std::vector<std::vector<uint64_t>>{
           {uint64_t{1} << 32, uint64_t{1} << 32}, {uint64_t{1} << 62}, {UINT64_MAX, 2, 0}}) {
    CHECK(contains(verdict_of_tensor([&](Tensor& t) { t.shape = shape; }),
                   "found a shape that overflows"));
  }
  CHECK(contains(verdict_of_tensor([](Tensor& t) {
                   t.dtype = DType::F4;
                   t.shape = {3};
                 }),
                 "in whole bytes"));
  CHECK(verdict_of_tensor([](Tensor& t) { t.shape = {0, UINT64_MAX}; }) == "accepted");
}

TEST_CASE("extents lie in their files and hold the values") {
  CHECK(verdict_of_tensor([](Tensor& t) { t.extents[0].file = 1; }) ==
        "tensor \"w\": expected one of 1 files, found number 1");
  CHECK(verdict_of_tensor([](Tensor& t) { t.extents[0].offset = 25; }) ==
        "tensor \"w\": expected bytes inside model.bin of 48 bytes, found 24 at 25");
  CHECK(contains(verdict_of_tensor([](Tensor& t) { t.extents[0].offset = UINT64_MAX; }),
                 "expected bytes inside model.bin"));
  CHECK(verdict_of_tensor([](Tensor& t) { t.extents[0].length = 23; }) ==
        "tensor \"w\": expected 24 bytes of values, found 23");
  CHECK(verdict_of_tensor([](Tensor& t) { t.extents.clear(); }) ==
        "tensor \"w\": expected 24 bytes of values, found 0");
  CHECK(verdict_of_tensor([](Tensor& t) {
          t.extents = {{0, 40, 8}, {0, 0, 16}};
        }) == "accepted");  // several, in any place
  CHECK(verdict_of_tensor([](Tensor& t) {
          t.extents.assign(1000, {0, 0, 48});
        }) == "accepted");  // more than the values
  CHECK(contains(verdict_of_tensor([](Tensor& t) { t.storage_offset = 1; }),
                 "expected a storage's offset and elements with strides only, found them alone"));
  CHECK(contains(verdict_of_tensor([](Tensor& t) { t.storage_elements = 6; }), "found them alone"));
  // What the host made of others may repeat their values.
  CHECK(verdict_of_tensor([](Tensor& t) {
          t.shape = {200, 3};
          t.expression = "strided([0, 1], w)";
        }) == "accepted");
}

TEST_CASE("all elements together stay far below 2^64 bytes") {
  // A stride of 0 makes any number of elements of one that is stored.
  const auto repeated = [](Tensor& t, uint64_t n) {
    t.shape = {n};
    t.strides = {0};
    t.storage_elements = 6;
  };
  CHECK(verdict_of_tensor([&](Tensor& t) { repeated(t, uint64_t{1} << 56); }) == "accepted");
  CHECK(contains(verdict_of_tensor([&](Tensor& t) { repeated(t, (uint64_t{1} << 56) + 1); }),
                 "expected at most 2^56 elements in all"));
  CHECK(contains(verdict([&](Manifest& m) {
                   m.tensors.push_back(m.tensors[0]);
                   m.tensors[1].name = "v";
                   for (Tensor& t : m.tensors) repeated(t, uint64_t{1} << 56);
                 }),
                 "found more at tensor \"v\""));
}

TEST_CASE("roles and hyper-parameters are known values") {
  CHECK(contains(verdict_of_tensor([](Tensor& t) { t.role = static_cast<manifest::Role>(9); }),
                 "expected a known role"));
  CHECK(contains(verdict([](Manifest& m) {
                   m.training.groups.push_back({{}, {{"a\xFF", {1.0}}}});
                 }),
                 "expected UTF-8 in a hyper-parameter's name"));
}

TEST_CASE("the sum of the extents does not overflow") {
  CHECK(contains(verdict([](Manifest& m) {
                   m.source.files[0].size = UINT64_MAX;
                   m.tensors[0].extents.assign(2, {0, 0, UINT64_MAX});
                 }),
                 "expected bytes inside model.bin"));
}

TEST_CASE("an encoded tensor's storage is its encoding's matter") {
  CHECK(verdict_of_tensor([](Tensor& t) {
          t.encoding = "ggml/Q4_0";
          t.extents[0].length = 3;
        }) == "accepted");
}

TEST_CASE("a strided view lies in its storage") {
  const auto strided = [](std::vector<uint64_t> shape, std::vector<int64_t> strides,
                          uint64_t offset = 0, uint64_t storage = 6, DType dtype = DType::F32) {
    return verdict_of_tensor([&](Tensor& t) {
      t.dtype = dtype;
      t.shape = std::move(shape);
      t.strides = std::move(strides);
      t.storage_offset = offset;
      t.storage_elements = storage;
    });
  };
  CHECK(strided({2, 3}, {3, 1}) == "accepted");
  CHECK(strided({3, 2}, {1, 3}) == "accepted");             // transposed
  CHECK(strided({1'000'000, 6}, {0, 1}) == "accepted");     // expanded
  CHECK(strided({2, 2}, {3, 1}, 1) == "accepted");          // a part: elements 1, 2, 4, 5
  CHECK(strided({0, 9}, {1, 1}, 1'000'000) == "accepted");  // nothing is touched
  CHECK(strided({1, 6}, {INT64_MAX, 1}) == "accepted");     // no step is made
  CHECK(contains(strided({2, 2}, {3, 1}, 2),
                 "expected a view inside its storage of 6 elements, found element 6"));
  CHECK(contains(strided({2, 3}, {4, 1}), "found element 6"));
  CHECK(contains(strided({2, 3}, {3, 1}, 0, 5), "storage of 5 elements, found element 5"));
  CHECK(contains(strided({1}, {1}, UINT64_MAX), "found element 18446744073709551615"));
  CHECK(contains(strided({2, 3}, {3}), "expected one stride for each of 2 dimensions, found 1"));
  CHECK(contains(strided({2, 3}, {-3, 1}), "expected strides of 0 or more, found -3"));
  CHECK(contains(strided({0, 3}, {-3, 1}), "expected strides of 0 or more, found -3"));
  CHECK(contains(strided({3, 2}, {INT64_MAX, 1}), "found element"));
  CHECK(contains(strided({4, 2}, {INT64_MAX, 1}), "found ones that overflow"));
  CHECK(contains(strided({2}, {1}, UINT64_MAX), "found ones that overflow"));
  // The storage itself lies in its extents.
  CHECK(contains(strided({2}, {1}, 0, 7),
                 "expected a storage inside its extents of 24 bytes, found 7 elements"));
  CHECK(contains(strided({2}, {1}, 0, UINT64_MAX), "expected a storage inside its extents"));
  CHECK(contains(strided({2}, {1}, 0, (UINT64_MAX >> 2) + 1), "expected a storage inside"));
  CHECK(
      contains(strided({4}, {1}, 0, 6, DType::F4), "expected strides of elements of whole bytes"));
}

TEST_CASE("the storage of an encoded tensor is as large as the reader says") {
  const auto encoded = [](uint64_t storage) {
    return verdict_of_tensor([&](Tensor& t) {
      t.encoding = "deflate";
      t.shape = {2};
      t.strides = {999};
      t.storage_elements = storage;
    });
  };
  CHECK(encoded(1000) == "accepted");
  CHECK(contains(encoded(999), "expected a view inside its storage of 999 elements"));
  CHECK(contains(encoded(UINT64_MAX), "expected a storage inside its extents"));
}

TEST_CASE("indexes of tensors exist") {
  CHECK(verdict([](Manifest& m) {
          m.alias_groups.push_back({{0, 1}});
        }) == "expected a tensor of an alias group below 1, found 1");
  CHECK(verdict([](Manifest& m) {
          m.training.groups.push_back({{1}, {}});
        }) == "expected a tensor of a parameter group below 1, found 1");
  CHECK(verdict([](Manifest& m) {
          m.training.moments.push_back({"exp_avg", 0, 1});
        }) == "expected a tensor of a moment below 1, found 1");
  CHECK(verdict([](Manifest& m) {
          m.training.moments.push_back({"exp_avg", 7, 0});
        }) == "expected a tensor of a moment below 1, found 7");
}

TEST_CASE("elements and bytes of a tensor") {
  CHECK(model::element_count(tensor("s", DType::F32, {})) == 1);
  CHECK(model::element_count(tensor("w", DType::BF16, {2, 3, 4})) == 24);
  CHECK(model::value_bytes(tensor("w", DType::BF16, {2, 3, 4})) == 48);
  CHECK(model::value_bytes(tensor("w", DType::F6_E2M3, {4})) == 3);
  CHECK(model::value_bytes(tensor("w", DType::F64, {0, 5})) == 0);
}
