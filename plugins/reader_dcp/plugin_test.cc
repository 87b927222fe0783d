// SPDX-License-Identifier: Apache-2.0

// The whole plugin against a host in memory.
#include <crossdock/plugin.hpp>

#include "plugins/reader_dcp/recipes_for_test.h"
#include "tests/support/plugin_checks.h"

using namespace crossdock;
using namespace crossdock::reader_dcp::recipe;
using manifest::Role;
using test::has;
using test::MemoryHost;
using test::open;

namespace {

void put(MemoryHost& host, const Folder& folder, const std::string& prefix = "") {
  for (const auto& [name, bytes] : folder.files(prefix)) host.inputs[name] = bytes;
}

std::string outcome(MemoryHost& host, const test::OptionValues& options = {}) {
  const auto reader = open(host, options);
  return reader ? "accepted" : reader.error().message;
}
std::string outcome(const Folder& folder, const test::OptionValues& options = {}) {
  MemoryHost host;
  put(host, folder);
  return outcome(host, options);
}

std::vector<std::string> names_of(const Folder& folder, const test::OptionValues& options = {}) {
  MemoryHost host;
  put(host, folder);
  const auto reader = open(host, options);
  if (!reader) return {reader.error().message};
  std::vector<std::string> out;
  for (const auto& t : (*reader)->manifest.tensors) out.push_back(t.name);
  return out;
}
using Names = std::vector<std::string>;

// A parameter with its step and moments, as get_optimizer_state_dict has them.
void add_state(Folder& folder, const std::string& optimizer, const std::string& name,
               const Sizes& shape, float step) {
  const std::string state = optimizer + "/state/" + name + "/";
  folder.add(state + "step", {}, step)
      .add(state + "exp_avg", shape, 10)
      .add(state + "exp_avg_sq", shape, 20);
}

}  // namespace

TEST_CASE("values of any range, from chunks in several files") {
  MemoryHost host;
  put(host,
      Folder()
          .add("w", {5, 3}, {{{0, 0}, {3, 3}, "__0_0.distcp"}, {{3, 0}, {2, 3}, "__1_0.distcp"}})
          .add("columns", {4, 4},
               {{{0, 0}, {4, 1}, "__0_0.distcp"}, {{0, 1}, {4, 3}, "__1_0.distcp"}})
          .add("scalar", {}, 7)
          .add("none", {0, 2}, {{{0, 0}, {0, 2}}}));
  const auto reader = open(host);
  REQUIRE(reader);
  const auto& m = (*reader)->manifest;
  CHECK(m.source.format == "dcp");
  REQUIRE(m.tensors.size() == 4);
  CHECK(m.tensors[0].shape == Sizes{5, 3});
  CHECK(m.tensors[0].extents.size() == 2);
  CHECK(m.source.files.size() == 2);
  CHECK(*(*reader)->read(0) == Folder::values(0, 15));
  CHECK(*(*reader)->read(1) == Folder::values(0, 16));
  CHECK(*(*reader)->read(2) == Folder::values(0, 1, 7));
  CHECK((*reader)->read(3)->empty());
  for (uint64_t begin = 0; begin < 15; ++begin) {
    for (uint64_t count = 1; count <= 15 - begin; ++count)
      CHECK(*(*reader)->read(dense_range(0, begin, count), count * 4) ==
            Folder::values(begin, begin + count));
  }
  CHECK((*reader)->read(dense_range(0, 15, 1), 4).error().code == XD_OUT_OF_RANGE);
  // Where the extents say that they lie.
  const manifest::Extent& second = m.tensors[0].extents[1];
  CHECK(host.inputs[m.source.files[second.file].name].substr(second.offset, second.length) ==
        Folder::values(9, 15));
}

TEST_CASE("the model is what lies under its keys, or all that is no optimizer's") {
  CHECK(names_of(Folder().add("a.w", {2}).add("b", {})) == Names{"a.w", "b"});
  CHECK(names_of(Folder().add("model/a.w", {2})) == Names{"a.w"});
  CHECK(names_of(Folder().add("app/model/model.w", {2})) == Names{"model.w"});
  CHECK(names_of(Folder().add("layers/0/w", {2}).add("norm", {2})) == Names{"layers.0.w", "norm"});
  CHECK(names_of(Folder().add("encoder/w", {2}).add("decoder/w", {2})) ==
        Names{"encoder.w", "decoder.w"});
  CHECK(names_of(Folder().add("model/w", {2}).add("ema/w", {2}).add("loss/w", {2})) == Names{"w"});
  CHECK(names_of(Folder().add("model/w", {2}).add("ema/w", {2}), {{"state-dict-path", "ema"}}) ==
        Names{"w"});
  CHECK(names_of(Folder().add("model/w", {2}).add("ema/w", {2}), {{"state-dict-path", "."}}) ==
        Names{"model.w", "ema.w"});
  CHECK(has(outcome(Folder().add("model/w", {2}).add("net/w", {2})),
            "expected one dict that is clearly the model, found \"model\" (1 tensors), \"net\" (1 "
            "tensors): choose it by its keys with --state-dict-path NAME"));
  CHECK(has(outcome(Folder().add("model_ema/w", {2}).add("x/w", {2})), "clearly the model"));
  CHECK(
      has(outcome(Folder().add("w", {2}), {{"state-dict-path", "x"}}),
          "--state-dict-path: expected the keys of a dict of tensors, found none below \"x\"; one "
          "of the names is \"w\""));
}

TEST_CASE("what is left out is told") {
  MemoryHost host;
  put(host, Folder()
                .add("model/w", {2})
                .add("ema/w", {2})
                .add_object("step", number(3))
                .add_object("optimizer/param_groups/0/lr", "G\x3f\xf8" + std::string(6, '\0')));
  REQUIRE(open(host));
  CHECK(host.logged("1 tensors lie beside the model and are left out: ema.w; --state-dict-path"));
  CHECK(host.logged("1 Python objects are left out, for nothing that is pickled is run: step"));
}

TEST_CASE("an optimizer's state becomes the training state") {
  Folder folder;
  folder.add("app/model/a.w", {2, 2}).add("app/model/b", {3});
  add_state(folder, "app/optim", "a.w", {2, 2}, 5);
  add_state(folder, "app/optim", "b", {3}, 5);
  folder.add("app/optim/state/lost/exp_avg", {3})
      .add("app/optim/state/b/odd", {2})
      .add_object("app/optim/param_groups/0/lr", "G\x3f\xf8" + std::string(6, '\0'))
      .add_object("app/optim/param_groups/0/betas",
                  tuple({number(1), "N", text("x"), list({"\x88"})}))
      .add_object("app/optim/param_groups/0/decoupled_weight_decay", "\x88")
      .add_object("app/optim/param_groups/0/params", list({text("b"), text("a.w")}));
  MemoryHost host;
  put(host, folder);
  const auto reader = open(host);
  REQUIRE(reader);
  const auto& m = (*reader)->manifest;
  Names names;
  for (const auto& t : m.tensors) names.push_back(t.name);
  CHECK(names == Names{"a.w", "b", "exp_avg/a.w", "exp_avg_sq/a.w", "exp_avg/b", "exp_avg_sq/b"});
  CHECK(m.tensors[1].role == Role::kUnspecified);
  CHECK(m.tensors[2].role == Role::kOptimizerState);
  const auto& training = m.training;
  CHECK(training.step == 5);
  CHECK(training.optimizer == "torch.optim.AdamW");
  REQUIRE(training.moments.size() == 4);
  CHECK((training.moments[3].kind == "exp_avg_sq" && training.moments[3].parameter == 1 &&
         training.moments[3].state == 5));
  REQUIRE(training.groups.size() == 1);
  CHECK(training.groups[0].tensors == std::vector<uint64_t>{1, 0});
  REQUIRE(training.groups[0].hyper_parameters.size() == 3);
  CHECK(*training.groups[0].hyper_parameters[0].value.get<double>() == 1.5);
  CHECK(training.groups[0].hyper_parameters[1].value.get<manifest::ValueList>()->values.size() ==
        4);
  CHECK(*(*reader)->read(3) == Folder::values(0, 4, 20));
  CHECK(
      host.logged("2 tensors of the optimizer are of no parameter of the model and are left out: "
                  "app.optim.state.lost.exp_avg, app.optim.state.b.odd"));
}

TEST_CASE("an optimizer's names may be flat, and steps differ") {
  Folder folder;
  folder.add("layers.0.w", {2})
      .add("optimizer/state.layers.0.w.exp_avg", {2})
      .add("optimizer/state.layers.0.w.step", {}, 4)
      .add("optimizer.state.layers.0.w.exp_avg_sq", {2})
      .add("optim.state.layers.0.w.step", {}, 6);
  MemoryHost host;
  put(host, folder);
  const auto reader = open(host);
  REQUIRE(reader);
  CHECK((*reader)->manifest.tensors.size() == 3);
  CHECK((*reader)->manifest.training.step == 6);
  CHECK(host.logged("different steps, from 4 to 6"));
}

TEST_CASE("accelerate's two folders") {
  Folder optimizer;
  add_state(optimizer, "optimizer", "w", {2}, 3);
  MemoryHost host;
  put(host, Folder().add("model/w", {2}), "pytorch_model_fsdp_0/");
  put(host, optimizer, "optimizer_0/");
  put(host, Folder().add("model/w", {2}), "pytorch_model_fsdp_1/");
  host.inputs["config.json"] = "{}";
  const auto reader = open(host);
  REQUIRE(reader);
  CHECK((*reader)->manifest.tensors.size() == 3);
  CHECK((*reader)->manifest.training.step == 3);
  CHECK((*reader)->manifest.source.files.size() == 2);
  CHECK((*reader)->manifest.aux_files.size() == 1);
  CHECK(*(*reader)->read(1) == Folder::values(0, 2, 10));
  CHECK(host.logged("pytorch_model_fsdp_0 is read, the first of several models"));
}

TEST_CASE("names of the same chunks are one tensor") {
  const Folder folder = Folder().add("a", {2}).add("c", {2});
  auto files = folder.files();
  // The place of c becomes that of a.
  const std::string archive = files["__0_0.distcp"].substr(0, files["__0_0.distcp"].size() / 2);
  const std::string from =
      index_of("c", torch_size({0})) + info_of("__0_0.distcp", archive.size(), archive.size());
  const std::string to =
      index_of("c", torch_size({0})) + info_of("__0_0.distcp", 0, archive.size());
  std::string& metadata = files[".metadata"];
  REQUIRE(metadata.find(from) != metadata.npos);
  metadata.replace(metadata.find(from), from.size(), to);
  MemoryHost host;
  host.inputs = {files.begin(), files.end()};
  const auto reader = open(host);
  REQUIRE(reader);
  REQUIRE((*reader)->manifest.alias_groups.size() == 1);
  CHECK((*reader)->manifest.alias_groups[0].tensors == std::vector<uint64_t>{0, 1});
}

TEST_CASE("a transposed tensor of one chunk keeps its strides") {
  const std::string archive =
      torch_zip(tensor(storage("0", 6), 0, {2, 3}, {1, 2}), {{"0", Folder::values(0, 6)}});
  MemoryHost host;
  host.inputs["x"] = archive;
  const std::string entry =
      object(kMetadata, "TensorStorageMetadata",
             dict({text("properties"), properties("float32"), text("size"), torch_size({2, 3}),
                   text("chunks"), list({chunk({0, 0}, {2, 3})})}));
  const auto with = [&](const std::string& file) {
    host.inputs[".metadata"] =
        metadata(text("w") + entry, "",
                 index_of("w", torch_size({0, 0})) + info_of(file, 0, archive.size()));
  };
  with("x");
  host.inputs["x.distcp"] = "";
  const auto reader = open(host);
  REQUIRE(reader);
  const auto& t = (*reader)->manifest.tensors[0];
  CHECK(t.strides == std::vector<int64_t>{1, 2});
  CHECK(t.storage_elements == 6);
  CHECK(*(*reader)->read(dense_range(0, 2, 3), 12) == Folder::values(2, 5));
}

TEST_CASE("files that lack or are of another save are named") {
  const Folder folder =
      Folder().add("w", {4}, {{{0}, {2}, "__0_0.distcp"}, {{2}, {2}, "__1_0.distcp"}});
  MemoryHost host;
  put(host, folder);
  const auto files = host.inputs;
  host.inputs.erase("__1_0.distcp");
  CHECK(
      outcome(host) ==
      "tensor \"w\": expected the shard __1_0.distcp, which .metadata names, found none: copy the "
      "whole folder");
  host.inputs = files;
  host.inputs["__1_0.distcp"].pop_back();
  const std::string size = cat(files.at("__1_0.distcp").size());
  CHECK(outcome(host) == cat("tensor \"w\": __1_0.distcp at byte 0: expected ", size,
                             " bytes at 0, found the end of __1_0.distcp at ",
                             host.inputs["__1_0.distcp"].size(), ": it is cut off, copy it again"));
  host.inputs = files;
  host.inputs["__1_0.distcp"].back() ^= 1;
  CHECK(has(outcome(host), "tensor \"w\": __1_0.distcp at byte 0: "));
  host.inputs = files;
  host.inputs["__1_0.distcp"].replace(0, std::string::npos,
                                      Folder().add("w", {2}, {{{0}, {2}, "x"}}).files().at("x"));
  CHECK(outcome(host) == "accepted");
  std::string other =
      torch_zip(tensor(storage("0", 2, "IntStorage"), 0, {2}, {1}), {{"0", "12345678"}});
  host.inputs[".metadata"] =
      metadata(text("w") + object(kMetadata, "TensorStorageMetadata",
                                  dict({text("properties"), properties("float32"), text("size"),
                                        torch_size({2}), text("chunks"), list({chunk({0}, {2})})})),
               "", index_of("w", torch_size({0})) + info_of("__0_0.distcp", 0, other.size()));
  host.inputs["__0_0.distcp"] = other;
  CHECK(outcome(host) ==
        "tensor \"w\": __0_0.distcp at byte 0: expected F32 values of [2], as .metadata has them, "
        "found I32 of [2]: the files are of different saves");
  other = torch_zip(global("evil", "Thing") + ")\x81", {});
  host.inputs[".metadata"] =
      metadata(text("w") + object(kMetadata, "TensorStorageMetadata",
                                  dict({text("properties"), properties("float32"), text("size"),
                                        torch_size({2}), text("chunks"), list({chunk({0}, {2})})})),
               "", index_of("w", torch_size({0})) + info_of("__0_0.distcp", 0, other.size()));
  host.inputs["__0_0.distcp"] = other;
  CHECK(has(outcome(host),
            "expected a plain tensor, found an object of the class evil.Thing: "
            "nothing was run"));
}

TEST_CASE("chunks that are not the tensor are refused before any file is read") {
  CHECK(
      outcome(Folder().add("w", {4}, {{{0}, {2}}})) ==
      "tensor \"w\": expected chunks that hold all 4 elements, found 2 in 1: the checkpoint lacks "
      "some");
  CHECK(has(outcome(Folder().add("w", {3}, {{{0}, {2}}, {{1}, {2}}})),
            "tensor \"w\": expected chunks side by side"));
}

TEST_CASE("folders that are none, or not whole") {
  MemoryHost host;
  put(host, Folder().add("w", {2}));
  host.inputs["metadata.json"] = R"({"sharded_backend": "torch_dist"})";
  CHECK(has(outcome(host), "found one of Megatron-Core (torch_dist)"));
  host.inputs["metadata.json"] = "{}";
  CHECK(outcome(host) == "accepted");
  host.inputs["common.pt"] = "";
  CHECK(has(outcome(host), "found one of Megatron-Core (torch_dist)"));
  host.inputs = {{"__0_0.distcp", ""}};
  CHECK(has(outcome(host),
            "expected .metadata, which torch writes last, beside *.distcp, found none"));
  host.inputs = {{"__0_0.distcp", ""}, {"__0.metadata", ""}};
  CHECK(has(outcome(host), "expected one .metadata of all ranks, found \"__0.metadata\""));
  host.inputs = {{".metadata", ""}};
  CHECK(has(outcome(host), "expected shards (*.distcp) beside .metadata, found none"));
  host.inputs = {{"x", ""}};
  CHECK(has(outcome(host), "name the folder that they lie in"));
  host.inputs = {{"__0_0.distcp", ""}, {".metadata", ""}};
  CHECK(has(outcome(host), ".metadata: expected at most "));
  host.named = "__0_0.distcp";
  CHECK(has(outcome(host), "found __0_0.distcp, which is one shard of it"));
}

TEST_CASE("probing goes by names") {
  CHECK(test::probe_names({".metadata", "__0_0.distcp"}) == 90);
  CHECK(test::probe_names(
            {"pytorch_model_fsdp_0/.metadata", "pytorch_model_fsdp_0/__0_0.distcp"}) == 85);
  CHECK(test::probe_names({"model/.metadata", "model/__0_0.distcp"}) == 80);
  CHECK(test::probe_names({"__0_0.distcp"}) == 60);
  CHECK(test::probe_names({".metadata"}) == 0);
  CHECK(test::probe_names({"a/b/.metadata", "a/b/__0_0.distcp"}) == 0);
  CHECK(test::probe_file("__0_0.distcp", "") == 95);
  CHECK(test::probe_file("x.bin", "") == 0);
}

TEST_CASE("CRCs are checked when asked for") {
  MemoryHost host;
  put(host, Folder().add("w", {2}));
  std::string& shard = host.inputs["__0_0.distcp"];
  const size_t at = shard.find(Folder::values(1, 2));
  REQUIRE(at != shard.npos);
  shard[at] ^= 1;
  CHECK(outcome(host) == "accepted");
  CHECK(
      has(outcome(host, {{"verify-crc", "true"}}), "to have the CRC that the zip directory says"));
}

TEST_CASE("every call of the host that fails is told") {
  Folder folder;
  folder.add("model/w", {4}, {{{0}, {2}, "__0_0.distcp"}, {{2}, {2}, "__1_0.distcp"}});
  add_state(folder, "optimizer", "w", {4}, 1);
  folder.add_object("optimizer/param_groups/0/lr", number(1));
  test::check_every_fault([&](MemoryHost& host) -> Result<std::string> {
    put(host, folder);
    XD_TRY_SET(const auto reader, open(host));
    return reader->read(0);
  });
}
