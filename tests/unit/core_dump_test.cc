// SPDX-License-Identifier: Apache-2.0

// protobuf itself reads the JSON back, so that the text is its own mapping.
#include "core/model/dump.h"

#include <google/protobuf/util/json_util.h>

#include "crossdock/manifest.pb.h"
#include "tests/unit/core_test_support.h"

using namespace crossdock;
using namespace crossdock::test;
using manifest::DType;

namespace {

crossdock::manifest::v1::Manifest read_back(const std::string& json) {
  crossdock::manifest::v1::Manifest out;
  const auto status = google::protobuf::util::JsonStringToMessage(json, &out);
  INFO(status.ToString());
  REQUIRE(status.ok());
  return out;
}

}  // namespace

TEST_CASE("protobuf reads the JSON as the same manifest") {
  manifest::Manifest m;
  m.source.format = "safetensors";
  m.source.files = {{"a.safetensors", uint64_t{1} << 53, "tree:00"}};
  m.source.metadata = {{"format", {std::string("pt")}},
                       {"n", {int64_t{-1}}},
                       {"none", {manifest::Null{}}},
                       {"pi", {3.5}}};
  m.tensors.push_back(tensor("h.0.w\xC3\xA9\"\n", DType::BF16, {2, uint64_t{1} << 60, 0}));
  m.tensors[0].extents = {{0, 8, 16}};
  m.tensors[0].strides = {-1, 2, 3};
  m.tensors[0].train = manifest::Training::kFrozen;
  m.alias_groups = {{{0, 0}}};
  m.training.step = 7;
  m.aux_files.push_back({manifest::AuxKind::kConfig, "config.json", manifest::Bytes{"\xFF\x00{}"}});
  m.provenance.push_back({"crossdock 0.1.0", "org.example 1", "SRC"});

  const auto json = model::to_json(m);
  REQUIRE(json);
  CHECK(read_back(*json).SerializeAsString() == manifest::encode(m));
}

TEST_CASE("fields keep their names of manifest.proto, and types theirs") {
  manifest::Manifest m;
  m.tensors.push_back(tensor("w", DType::F32, {2}));
  m.tensors[0].target_name = "v";
  const auto json = model::to_json(m);
  REQUIRE(json);
  CHECK(contains(*json, "\"target_name\": \"v\""));
  CHECK(contains(*json, "\"dtype\": \"F32\""));
  CHECK(json->back() == '\n');
}

TEST_CASE("what protobuf refuses is an error, not a broken file") {
  manifest::Manifest m;
  m.source.format = "\xFF";
  CHECK(contains(message(model::to_json(m)), "manifest: "));
}
