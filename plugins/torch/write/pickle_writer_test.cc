// SPDX-License-Identifier: Apache-2.0
#include "plugins/torch/write/pickle_writer.h"

#include <limits>
#include <string>

#include "tests/catch.h"

using namespace crossdock::torch_write;
using crossdock::manifest::DType;

namespace {

// The pickle of one value, without PROTO and STOP.
template <class T>
std::string body(const T& value) {
  PickleWriter p;
  p.put(value);
  const std::string all = std::move(p).finish();
  CHECK(all.substr(0, 2) == "\x80\x02");
  CHECK(all.back() == '.');
  return all.substr(2, all.size() - 3);
}

// A literal with its NULs.
template <size_t N>
std::string bytes(const char (&text)[N]) {
  return {text, N - 1};
}

}  // namespace

TEST_CASE("plain values") {
  CHECK(body(None{}) == "N");
  CHECK(body(true) == "\x88");
  CHECK(body(false) == "\x89");
  CHECK(body("é") == bytes("X\2\0\0\0\xc3\xa9"));
  CHECK(body(std::string()) == bytes("X\0\0\0\0"));
  CHECK(body(1.5) == bytes("G\x3f\xf8\0\0\0\0\0\0"));
}

TEST_CASE("integers take the shortest opcode, as Python's pickler does") {
  CHECK(body(0) == bytes("K\0"));
  CHECK(body(255) == "K\xff");
  CHECK(body(256) == bytes("M\0\1"));
  CHECK(body(65535) == "M\xff\xff");
  CHECK(body(65536) == bytes("J\0\0\1\0"));
  CHECK(body(-1) == "J\xff\xff\xff\xff");
  CHECK(body(std::numeric_limits<int32_t>::max()) == "J\xff\xff\xff\x7f");
  CHECK(body(std::numeric_limits<int32_t>::min()) == bytes("J\0\0\0\x80"));
}

TEST_CASE("integers above 32 bits: LONG1 with eight bytes, all that libtorch takes") {
  CHECK(body(int64_t{1} << 31) == bytes("\x8a\x08\0\0\0\x80\0\0\0\0"));
  CHECK(body(uint64_t{1} << 40) == bytes("\x8a\x08\0\0\0\0\0\1\0\0"));
  CHECK(body(std::numeric_limits<int64_t>::max()) == "\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f");
  CHECK(body(std::numeric_limits<int64_t>::min()) == bytes("\x8a\x08\0\0\0\0\0\0\0\x80"));
}

TEST_CASE("containers, full and empty") {
  PickleWriter p;
  p.list([&] {
    p.put(1);
    p.tuple([&] { p.put("x"); });
    p.tuple([] {});
    p.dict([&] { p.entry("k", None{}); });
    p.dict([] {});
    p.list([] {});
    p.put(EmptyDict{});
    p.put(EmptyList{});
    p.ordered_dict([&] { p.entry(0, [&] { p.list([] {}); }); });
    p.torch_size(std::vector<uint64_t>{2, 3});
    p.torch_size({});
  });
  CHECK(std::move(p).finish() == bytes("\x80\2](K\1"
                                       "(X\1\0\0\0xt"
                                       "(t"
                                       "}(X\1\0\0\0kNu"
                                       "}"
                                       "]"
                                       "}"
                                       "]"
                                       "ccollections\nOrderedDict\n)R(K\0]u"
                                       "ctorch\nSize\n((K\2K\3ttR"
                                       "ctorch\nSize\n((ttR"
                                       "e."));
}

TEST_CASE("a tensor over a typed storage") {
  CHECK(body(PickledTensor::dense(DType::F32, {2, 3}, 7)) ==
        bytes("ctorch._utils\n_rebuild_tensor_v2\n((X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0"
              "7X\3\0\0\0cpuK\6tQK\0(K\2K\3t(K\3K\1t\x89"
              "ccollections\nOrderedDict\n)RtR"));
}

TEST_CASE("a tensor of a type without a storage class is bytes and a dtype") {
  CHECK(body(PickledTensor::dense(DType::U16, {3}, 0)) ==
        bytes("ctorch._utils\n_rebuild_tensor_v3\n((X\7\0\0\0storagectorch."
              "storage\nUntypedStorage\nX\1\0\0\0"
              "0X\3\0\0\0cpuK\6tQK\0(K\3t(K\1t\x89"
              "ccollections\nOrderedDict\n)Rctorch\nuint16\ntR"));
}

TEST_CASE("strides") {
  using Strides = std::vector<int64_t>;
  CHECK(PickledTensor::dense(DType::F32, {2, 3, 4}, 0).strides == Strides{12, 4, 1});
  CHECK(PickledTensor::dense(DType::F32, {2, 0, 4}, 0).strides == Strides{4, 4, 1});
  CHECK(PickledTensor::dense(DType::F32, {2, 0, 4}, 0).n_elems == 0);
  CHECK(PickledTensor::dense(DType::F32, {}, 0).n_elems == 1);
  const auto repeated = PickledTensor::repeated(DType::F32, {2, 3}, 0);
  CHECK(repeated.strides == Strides{0, 0});
  CHECK(repeated.n_elems == 1);
}

TEST_CASE("torch has every element type but the sub-byte ones") {
  using namespace crossdock::manifest;
  for (uint32_t i = 1; i < kDTypes.size(); ++i) {
    const auto dtype = static_cast<DType>(i);
    CHECK(torch_has(dtype) == (info(dtype).kind != Kind::kSubByte));
  }
}
