// SPDX-License-Identifier: Apache-2.0
#include "plugins/reader_dcp/metadata.h"

#include "plugins/reader_dcp/recipes_for_test.h"
#include "tests/support/plugin_checks.h"

using namespace crossdock;
using namespace crossdock::reader_dcp;
using namespace crossdock::reader_dcp::recipe;
using test::has;

namespace {

std::string outcome(const std::string& bytes) {
  const auto out = parse_metadata(bytes);
  return out ? "accepted" : out.error().message;
}

std::string tensor_of(const std::string& chunks,
                      const std::string& properties_of = properties("float32"),
                      const Sizes& size = {2}) {
  return object(kMetadata, "TensorStorageMetadata",
                dict({text("properties"), properties_of, text("size"), torch_size(size),
                      text("chunks"), list({chunks})}));
}

const std::string kPlace = index_of("w", torch_size({0})) + info_of("a", 3, 5);

std::string outcome_of(const std::string& value, const std::string& place = kPlace) {
  return outcome(metadata(text("w") + value, "", place));
}

}  // namespace

TEST_CASE("metadata: tensors, objects, paths and places") {
  Folder folder;
  folder.add("model/a.b", {4, 2}, {{{0, 0}, {2, 2}, "y"}, {{2, 0}, {2, 2}, "x"}})
      .add("list/0/w", {})
      .add_object("step", number(3));
  const auto out = parse_metadata(folder.files().at(".metadata"));
  REQUIRE(out);
  CHECK(out->files == std::vector<std::string>{"__0_0.distcp", "x", "y"});
  REQUIRE(out->tensors.size() == 2);
  const TensorEntry& t = out->tensors[0];
  CHECK(t.name == "model.a.b");
  CHECK(t.path == std::vector<std::string>{"model", "a.b"});
  CHECK(t.dtype == manifest::DType::F32);
  CHECK(t.shape == Sizes{4, 2});
  REQUIRE(t.chunks.size() == 2);
  CHECK(t.chunks[1].offsets == Sizes{2, 0});
  CHECK(t.chunks[1].sizes == Sizes{2, 2});
  CHECK(out->files[t.chunks[1].place.file] == "x");
  CHECK(t.chunks[1].place.n_bytes == folder.files().at("x").size());
  CHECK(out->tensors[1].path == std::vector<std::string>{"list", "0", "w"});
  REQUIRE(out->objects.size() == 1);
  CHECK(out->objects[0].name == "step");
}

TEST_CASE("metadata: keys that do not make up the name are not believed") {
  const auto path = [](const std::string& keys) {
    const auto out = parse_metadata(metadata(text("a.b") + tensor_of(""), text("a.b") + keys, ""));
    REQUIRE(out);
    return out->tensors[0].path;
  };
  using Path = std::vector<std::string>;
  CHECK(path(tuple({text("a"), text("b")})) == Path{"a", "b"});
  CHECK(path(tuple({text("a.b")})) == Path{"a.b"});
  for (const std::string& other :
       {tuple({text("a")}), tuple({text("a"), text("c")}), tuple({text("a"), text("b"), text("c")}),
        tuple({text("ab")}), tuple({"N"}), tuple({text("a"), text("b"), text("")}), tuple({}),
        text("a"), tuple({text("a.")}), tuple({text("a.b.c")})})
    CHECK(path(other) == Path{"a.b"});
}

TEST_CASE("metadata: classes as torch 2.0 spelled them, and empty chunks") {
  std::string bytes =
      metadata(text("w") + tensor_of(chunk({0}, {2}) + chunk({2}, {0})), "", kPlace);
  const auto replace = [&](std::string_view from, std::string_view to) {
    for (size_t at; (at = bytes.find(from)) != bytes.npos;) bytes.replace(at, from.size(), to);
  };
  replace("torch.distributed.checkpoint.metadata\nTensorProperties",
          "torch.distributed._shard.sharded_tensor.metadata\nTensorProperties");
  const auto out = parse_metadata(bytes);
  REQUIRE(out);
  CHECK(out->tensors[0].chunks.size() == 1);
}

TEST_CASE("metadata: what is not torch's is refused, and not run") {
  CHECK(outcome_of(tensor_of(chunk({0}, {2}))) == "accepted");
  CHECK(outcome(pickle(dict({}))) == "expected torch's Metadata, found a dict: nothing was run");
  CHECK(outcome_of(object("evil", "TensorStorageMetadata", dict({}))) ==
        "\"w\": expected torch's TensorStorageMetadata, found an object of the class "
        "\"evil.TensorStorageMetadata\": nothing was run");
  CHECK(has(outcome_of(object("os", "system", dict({}))), "made to attack"));
  CHECK(outcome_of(tensor_of(object(kMetadata, "Metadata", dict({})))) ==
        "\"w\": expected torch's ChunkStorageMetadata, found an object of the class "
        "\"torch.distributed.checkpoint.metadata.Metadata\": nothing was run");
  CHECK(outcome_of(tensor_of(
            "", object(kMetadata, "TensorProperties", tuple({global("torch", "qint8")})))) ==
        "\"w\": expected an element type of plain values, found an object of the class "
        "\"torch.qint8\"");
  CHECK(has(outcome_of(tensor_of("", object(kMetadata, "TensorProperties", dict({})))),
            "expected the state of TensorProperties, found a dict"));
  CHECK(outcome_of(global(kMetadata, "TensorStorageMetadata") + ")\x81") ==
        "\"w\": expected one state of an object of TensorStorageMetadata, found none");
  CHECK(outcome_of(global(kMetadata, "TensorStorageMetadata") + ")\x81}b}b") ==
        "\"w\": expected one state of an object of TensorStorageMetadata, found more");
  CHECK(outcome_of(object(kMetadata, "TensorStorageMetadata", dict({}))) ==
        "\"w\": expected the attribute \"properties\", found none");
  CHECK(has(outcome(metadata(number(1) + "N", "", "")),
            "expected names of tensors, found an integer"));
}

TEST_CASE("metadata: chunks and their places") {
  CHECK(outcome_of(tensor_of(chunk({1}, {1}))) ==
        "\"w\": expected a place in storage_data for its chunk at [1], found none");
  CHECK(outcome_of(tensor_of(chunk({0, 0}, {2, 1}))) ==
        "\"w\": expected chunks of 1 dimensions, found one of 2");
  CHECK(outcome_of(tensor_of("N")) ==
        "\"w\": expected torch's ChunkStorageMetadata, found None: nothing was run");
  CHECK(outcome_of(tensor_of(chunk({0}, {2})), kPlace + kPlace) ==
        "expected each chunk in one place, found one of \"w\" in two");
  CHECK(outcome_of(tensor_of(chunk({0}, {2})),
                   index_of("w", torch_size({0})) + info_of("../a", 0, 1)) ==
        "expected the name of a file beside .metadata, found \"../a\"");
  CHECK(has(outcome_of(tensor_of(""), index_of("w", "K\1") + info_of("a", 0, 1)),
            "expected \"offset\" to be a torch.Size, found an integer"));
  CHECK(has(
      outcome_of(tensor_of(""), index_of("w", "N") +
                                    object(kFilesystem, "_StorageInfo",
                                           dict({text("relative_path"), text("a"), text("offset"),
                                                 "J\xff\xff\xff\xff", text("length"), number(1)}))),
      "expected \"offset\" of 0 or more, found -1"));
  const std::string zstd =
      object(kFilesystem, "_StorageInfo",
             dict({text("relative_path"), text("a"), text("offset"), number(0), text("length"),
                   number(1), text("transform_descriptors"), tuple({text("zstd")})}));
  CHECK(has(outcome_of(tensor_of(""), index_of("w", "N") + zstd), "an extension transformed"));
  CHECK(has(outcome(metadata("", "", "") + "."), "found 1 bytes more"));
  CHECK(parse_metadata("\x80\x04").error().code == XD_OUT_OF_RANGE);
}
