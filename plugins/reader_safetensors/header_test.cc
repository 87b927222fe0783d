// SPDX-License-Identifier: Apache-2.0
#include "plugins/reader_safetensors/header.h"

#include <simdjson.h>

#include "plugins/reader_safetensors/recipes_for_test.h"

using namespace crossdock;
using namespace crossdock::reader_safetensors;

namespace {

// The refusal of a file with this header and so many bytes of data, without the file's name.
std::string refusal(const std::string& header, uint64_t n_bytes = 0) {
  const std::string text = outcome(file(header, std::string(n_bytes, 'x')));
  const std::string place = "model.safetensors: ";
  if (text.starts_with(place)) return text.substr(place.size());
  return text;
}

std::string one(const std::string& dtype, const std::string& shape, uint64_t begin, uint64_t end) {
  return "{" + entry("w", dtype, shape, begin, end) + "}";
}

const std::string kAgain =
    "the file is cut off, as by an interrupted download: run `hf download` again";

}  // namespace

TEST_CASE("header: a file as safetensors writes it") {
  test::MemoryHost host;
  host.inputs["model.safetensors"] =
      file("{\"__metadata__\":{\"format\":\"pt\"}," + entry("b", "F32", "[1]", 8, 12) + "," +
               entry("a", "BF16", "[2,2]", 0, 8) + "}   ",
           "AAAAAAAABBBB");
  const auto reader = open(host);
  REQUIRE(reader);
  const auto& m = (*reader)->manifest;
  CHECK(m.source.format == "safetensors");
  REQUIRE(m.source.files.size() == 1);
  CHECK(m.source.files[0] ==
        manifest::File{"model.safetensors", host.inputs["model.safetensors"].size(), ""});
  REQUIRE(m.source.metadata.size() == 1);
  CHECK(m.source.metadata[0] == manifest::KeyValue{"format", {std::string("pt")}});
  REQUIRE(m.tensors.size() == 2);
  CHECK(m.tensors[0].name == "a");
  CHECK(m.tensors[0].dtype == manifest::DType::BF16);
  CHECK(m.tensors[0].shape == std::vector<uint64_t>{2, 2});
  const uint64_t data = host.inputs["model.safetensors"].size() - 12;
  CHECK(m.tensors[0].extents == std::vector<manifest::Extent>{{0, data, 8}});
  CHECK(m.tensors[1].extents == std::vector<manifest::Extent>{{0, data + 8, 4}});
  CHECK(m.tensors[1].role == manifest::Role::kUnspecified);
}

TEST_CASE("header: every dtype of safetensors 0.8") {
  struct Case {
    const char* name;
    const char* shape;
    uint64_t n_bytes;
  };
  for (const Case& c : {Case{"BOOL", "[4]", 4},    {"F4", "[2,3]", 3},        {"F6_E2M3", "[4]", 3},
                        {"F6_E3M2", "[8]", 6},     {"U8", "[4]", 4},          {"I8", "[4]", 4},
                        {"F8_E5M2", "[4]", 4},     {"F8_E4M3", "[4]", 4},     {"F8_E8M0", "[4]", 4},
                        {"F8_E4M3FNUZ", "[4]", 4}, {"F8_E5M2FNUZ", "[4]", 4}, {"I16", "[4]", 8},
                        {"U16", "[4]", 8},         {"F16", "[4]", 8},         {"BF16", "[4]", 8},
                        {"I32", "[4]", 16},        {"U32", "[4]", 16},        {"F32", "[4]", 16},
                        {"C64", "[4]", 32},        {"F64", "[4]", 32},        {"I64", "[4]", 32},
                        {"U64", "[4]", 32}}) {
    CAPTURE(c.name);
    test::MemoryHost host;
    host.inputs["model.safetensors"] =
        file(one(c.name, c.shape, 0, c.n_bytes), std::string(c.n_bytes, 'x'));
    const auto reader = open(host);
    REQUIRE(reader);
    CHECK(manifest::name((*reader)->manifest.tensors[0].dtype) == c.name);
    CHECK(*(*reader)->read(0) == std::string(c.n_bytes, 'x'));
  }
  for (const char* name : {"C32", "C128", "unspecified", "bf16", "F33", ""}) {
    CHECK(refusal(one(name, "[1]", 0, 4), 4) ==
          cat("tensor \"w\": expected a dtype of safetensors 0.8 (BF16, F32, ...), found \"", name,
              "\""));
  }
}

TEST_CASE("header: what the reference accepts, too") {
  for (
      const std::string& header : {
          std::string("{}"), std::string("  {}\n"), std::string(R"({"__metadata__":null})"),
          std::string(R"({"__metadata__":{}})"), one("F32", "[]", 0, 4), one("F32", "[0]", 0, 0),
          one("F32", "[0,18446744073709551615]", 0, 0),
          "{" + entry("", "U8", "[1]", 0, 1) + "}",  // an empty name
          "{" + entry("z", "U8", "[0]", 1, 1) + "," + entry("y", "U8", "[1]", 0, 1) + "," +
              entry("x", "U8", "[0]", 0, 0) + "}",
          std::string(
              R"({"w":{"extra":{"deep":[1]},"data_offsets":[0,1],"dtype":"U8","shape":[1]}})"),  // another field
      }) {
    CAPTURE(header);
    const uint64_t n_bytes = header.find(",4]}") != std::string::npos  ? 4
                             : header.find(",1]") != std::string::npos ? 1
                                                                       : 0;
    CHECK(refusal(header, n_bytes) == "accepted");
  }
}

TEST_CASE("header: its length") {
  CHECK(outcome("") == "model.safetensors: expected a safetensors file, found 0 bytes: " + kAgain);
  CHECK(outcome("1234567") ==
        "model.safetensors: expected a safetensors file, found 7 bytes: " + kAgain);
  std::string bytes;
  put_le(bytes, uint64_t{100});
  CHECK(outcome(bytes + "{}") ==
        "model.safetensors: expected a header of 100 bytes, found 2: " + kAgain);
  bytes.clear();
  put_le(bytes, kMaxHeaderBytes + 1);
  CHECK(outcome(bytes + "{}") ==
        "model.safetensors: expected a header of at most 100000000 bytes, found a length of "
        "100000001: this is not a "
        "safetensors file, or it is damaged");
  bytes.clear();
  put_le(bytes, UINT64_MAX);
  CHECK(outcome(bytes).find("found a length of 18446744073709551615") != std::string::npos);
  CHECK(outcome("version https://git-lfs.github.com/spec/v1\noid sha256:00\n") ==
        "model.safetensors: expected a safetensors file, found a Git LFS pointer: run `git lfs "
        "pull`");
  CHECK(outcome(file("")) ==
        cat("model.safetensors: header: expected JSON, found 0 bytes that are not (",
            simdjson::error_message(simdjson::EMPTY), ")"));
}

TEST_CASE("header: a header that the memory budget does not hold") {
  test::MemoryHost host;
  host.budget = 1000;
  host.inputs["model.safetensors"] = file(std::string(1000, ' ') + "{}");
  CHECK(outcome(host).find(
            "model.safetensors: header: expected 1066 bytes within the memory budget") == 0);
}

TEST_CASE("header: strict JSON") {
  CHECK(refusal("{,}").find("header: expected JSON, found 3 bytes that are not (") == 0);
  for (const std::string& header :
       {std::string("{} x"), std::string("{\"\xff\":1}"), std::string("\xef\xbb\xbf{}"),
        std::string(R"({"\ud800":1})"), one("F32", "[1,]", 0, 4), one("F32", "[NaN]", 0, 4),
        std::string("{}\0", 3)}) {
    CAPTURE(header);
    CHECK(refusal(header, 4).find("header: expected JSON, found ") == 0);
  }
  CHECK(refusal("[]") == "expected the header to be an object, found an array");
  CHECK(refusal("1") == "expected the header to be an object, found an integer");
}

TEST_CASE("header: names are unique after unescaping, though the reference keeps the last") {
  const std::string entries =
      entry("a", "U8", "[1]", 0, 1) + "," + entry("\\u0061", "U8", "[1]", 0, 1);
  CHECK(refusal("{" + entries + "}", 1) ==
        "expected each key of the header once, found \"a\" twice");
  CHECK(refusal(R"({"__metadata__":{},"__meta\u0064ata__":{}})") ==
        "expected each key of the header once, found \"__metadata__\" twice");
  CHECK(refusal(R"({"__metadata__":{"a":"1","a":"2"}})") ==
        "__metadata__: expected each key of __metadata__ once, found \"a\" twice");
  CHECK(refusal(R"({"w":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1) ==
        "tensor \"w\": expected each key of its entry once, found \"dtype\" twice");
}

TEST_CASE("header: the fields of an entry") {
  const auto w = [](const std::string& value) { return refusal("{\"w\":" + value + "}", 1); };
  CHECK(w("1") == "tensor \"w\": expected an object, found an integer");
  CHECK(w(R"(["U8",[1],[0,1]])") == "tensor \"w\": expected an object, found an array");
  CHECK(w(R"({"shape":[1],"data_offsets":[0,1]})") ==
        "tensor \"w\": expected the field \"dtype\", found none");
  CHECK(w(R"({"dtype":"U8","data_offsets":[0,1]})") ==
        "tensor \"w\": expected the field \"shape\", found none");
  CHECK(w(R"({"dtype":"U8","shape":[1]})") ==
        "tensor \"w\": expected the field \"data_offsets\", found none");
  CHECK(w(R"({"dtype":1,"shape":[1],"data_offsets":[0,1]})") ==
        "tensor \"w\": expected \"dtype\" to be a string, found an integer");
  CHECK(w(R"({"dtype":"U8","shape":1,"data_offsets":[0,1]})") ==
        "tensor \"w\": expected \"shape\" to be an array, found an integer");
  CHECK(w(R"({"dtype":"U8","shape":[1],"data_offsets":{}})") ==
        "tensor \"w\": expected \"data_offsets\" to be an array, found an object");
  CHECK(w(R"({"dtype":"U8","shape":[-1],"data_offsets":[0,1]})") ==
        "tensor \"w\": expected integers of 0 or more in \"shape\", found -1");
  CHECK(w(R"({"dtype":"U8","shape":[1.0],"data_offsets":[0,1]})") ==
        "tensor \"w\": expected integers of 0 or more in \"shape\", found a number with a fraction "
        "or exponent");
  CHECK(w(R"({"dtype":"U8","shape":["1"],"data_offsets":[0,1]})") ==
        "tensor \"w\": expected integers of 0 or more in \"shape\", found a string");
  CHECK(w(R"({"dtype":"U8","shape":[1],"data_offsets":[null,1]})") ==
        "tensor \"w\": expected integers of 0 or more in \"data_offsets\", found null");
  CHECK(w(R"({"dtype":"U8","shape":[1],"data_offsets":[0]})") ==
        "tensor \"w\": expected \"data_offsets\" to be [begin, end], found 1 values");
  CHECK(w(R"({"dtype":"U8","shape":[1],"data_offsets":[0,1,2]})") ==
        "tensor \"w\": expected \"data_offsets\" to be [begin, end], found 3 values");
}

TEST_CASE("header: the type of __metadata__") {
  CHECK(refusal(R"({"__metadata__":[]})") ==
        "__metadata__: expected an object of strings, found an array");
  CHECK(refusal(R"({"__metadata__":{"a":1}})") ==
        "__metadata__: key \"a\": expected a string, found an integer");
  CHECK(refusal(R"({"__metadata__":{"a":null}})") ==
        "__metadata__: key \"a\": expected a string, found null");
}

TEST_CASE("header: sizes") {
  CHECK(refusal(one("F32", "[2]", 0, 4), 4) ==
        "tensor \"w\": expected 8 bytes for its dtype and shape, found data_offsets [0, 4]");
  CHECK(refusal(one("F32", "[1]", 4, 0), 4) ==
        "tensor \"w\": expected 4 bytes for its dtype and shape, found data_offsets [4, 0]");
  const std::string overflow =
      "tensor \"w\": expected a shape whose size fits 64 bits, found one that does not";
  CHECK(refusal(one("U8", "[18446744073709551615,2,0]", 0, 0)) == overflow);
  CHECK(refusal(one("U8", "[4294967296,4294967296]", 0, 0)) == overflow);
  CHECK(refusal(one("F64", "[2305843009213693952]", 0, 0)) == overflow);
  CHECK(refusal(one("U8", "[2305843009213693952]", 0, 0)) ==
        overflow);  // in bits, as the reference counts
  CHECK(refusal(one("F4", "[3]", 0, 2), 2) ==
        "tensor \"w\": expected F4 elements to fill whole bytes, found 3 of 4 bits");
  CHECK(refusal(one("F6_E2M3", "[2]", 0, 2), 2) ==
        "tensor \"w\": expected F6_E2M3 elements to fill whole bytes, found 2 of 6 bits");
}

TEST_CASE("header: the tensors tile the data") {
  const auto two = [](uint64_t b1, uint64_t e1, uint64_t b2, uint64_t e2) {
    return "{" + entry("a", "U8", cat("[", e1 - b1, "]"), b1, e1) + "," +
           entry("b", "U8", cat("[", e2 - b2, "]"), b2, e2) + "}";
  };
  CHECK(refusal(two(0, 4, 4, 8), 8) == "accepted");
  CHECK(refusal(two(4, 8, 0, 4), 8) == "accepted");
  CHECK(refusal(two(1, 4, 4, 8), 8) ==
        "tensor \"a\": expected its bytes to begin at 0, where the data begins, found 1 (a hole): "
        "save the file again");
  CHECK(refusal(two(0, 4, 5, 8), 8) ==
        "tensor \"b\": expected its bytes to begin at 4, where the tensor before it ends, found 5 "
        "(a hole): save the "
        "file again");
  CHECK(refusal(two(0, 4, 3, 8), 8) ==
        "tensor \"b\": expected its bytes to begin at 4, where the tensor before it ends, found 3 "
        "(an overlap): save "
        "the file again");
  CHECK(refusal(two(0, 4, 0, 4), 4) ==
        "tensor \"b\": expected its bytes to begin at 4, where the tensor before it ends, found 0 "
        "(an overlap): save "
        "the file again");
  CHECK(refusal(two(0, 4, 4, 8), 7) == "expected 8 bytes of tensors, found 7: " + kAgain);
  CHECK(refusal(two(0, 4, 4, 8), 10) ==
        "expected 8 bytes of tensors, found 2 bytes more after them: save the file again");
  CHECK(refusal("{}", 1) ==
        "expected 0 bytes of tensors, found 1 bytes more after them: save the file again");
}

TEST_CASE("header: offsets near 2^64 do not wrap") {
  const uint64_t max = UINT64_MAX;
  CHECK(refusal(one("U8", cat("[", max, "]"), 0, max)) ==
        "tensor \"w\": expected a shape whose size fits 64 bits, found one that does not");
  CHECK(refusal(one("U8", "[1]", max - 1, max), 1) ==
        cat("tensor \"w\": expected its bytes to begin at 0, where the data begins, found ",
            max - 1, " (a hole): save the file again"));
  const uint64_t most = max / 8;  // bytes
  CHECK(refusal(one("U8", cat("[", most, "]"), 0, most)) ==
        cat("expected ", most, " bytes of tensors, found 0: ", kAgain));
}

TEST_CASE("header: cut off anywhere, the file is refused") {
  const std::string whole =
      file("{\"__metadata__\":{\"a\":\"b\"}," + entry("w", "F32", "[2]", 0, 8) + "}", "AAAABBBB");
  REQUIRE(outcome(whole) == "accepted");
  for (size_t n = 0; n < whole.size(); ++n) {
    CAPTURE(n);
    const std::string text = outcome(whole.substr(0, n));
    CHECK(text.find("model.safetensors: expected ") == 0);
    CHECK(text.find("run `hf download` again") != std::string::npos);
  }
}

TEST_CASE(
    "header: any flipped bit gives an error with a message, or a manifest that is true of the "
    "file") {
  const std::string whole =
      file("{\"__metadata__\":{\"a\":\"\\u00e9\"}," + entry("v", "BF16", "[2,1]", 0, 4) + "," +
               entry("w", "F4", "[4]", 4, 6) + "}",
           "abcdef");
  REQUIRE(outcome(whole) == "accepted");
  for (size_t bit = 0; bit < 8 * (whole.size() - 6); ++bit) {
    CAPTURE(bit);
    test::MemoryHost host;
    std::string& bytes = host.inputs["model.safetensors"];
    bytes = whole;
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << bit % 8));
    const auto reader = open(host);
    if (!reader) {
      CHECK(reader.error().message.find("model.safetensors: ") == 0);
      continue;
    }
    for (uint64_t i = 0; i < (*reader)->manifest.tensors.size(); ++i) {
      const auto& t = (*reader)->manifest.tensors[i];
      const auto n_elems = checked_product(t.shape);
      REQUIRE(n_elems);
      CHECK(manifest::dense_bytes(t.dtype, *n_elems) == t.extents[0].length);
      CHECK(*(*reader)->read(i) == whole.substr(t.extents[0].offset, t.extents[0].length));
    }
  }
}
