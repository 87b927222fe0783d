// SPDX-License-Identifier: Apache-2.0

// fuzz_seeds NAME DIR: writes the first inputs of a fuzzer, from the recipes that the unit tests
// use where there are any.
#include <filesystem>
#include <fstream>
#include <iostream>

#include "core/convert/record.h"
#include "core/io/journal.h"
#include "core/report/report.h"
#include "plugins/reader_dcp/recipes_for_test.h"
#include "plugins/reader_gguf/recipes_for_test.h"
#include "plugins/reader_safetensors/recipes_for_test.h"
#include "plugins/reader_universal/recipes_for_test.h"
#include "plugins/reader_zero/parallel_recipes_for_test.h"
#include "plugins/torch/read/recipes_for_test.h"
#include "tests/fuzz/cut.h"
#include "tests/fuzz/quantised_input.h"
#include "tests/support/compose_rule.h"

using namespace crossdock::torch_read::recipe;

namespace {

std::vector<std::string> values() {
  const std::string t = tensor(storage("0", 2), 0, {2}, {1});
  return {
      ordered_dict({text("w"), t}) + "}" + text("_metadata") + ordered_dict({}) + "sb",
      dict({text("state_dict"),
            dict({text("a"), tensor(storage("0", 6, "HalfStorage"), 1, {2, 2}, {1, 2})}),
            text("epoch"), number(3)}),
      dict({text("p"),
            call(global("torch._utils", "_rebuild_parameter"), {t, "\x88", ordered_dict({})}),
            text("u"),
            call(global("torch._utils", "_rebuild_tensor_v3"),
                 {storage("1", 8, "UntypedStorage", "torch.storage"), number(0), numbers({4}),
                  numbers({1}), "\x89", ordered_dict({}), global("torch", "uint16")})}),
      tuple({number(1), number(-70000), number(int64_t{1} << 40), "G12345678", "N", "\x88", "]Na",
             "U\x01x", "M\x01\x02q\x00h\x00\x86"s}),
      call(global("os", "system"), {text("true")}),
      dict({text("model"), ordered_dict({text("a.weight"), t}), text("ema"),
            ordered_dict({text("a.weight"), t}), text("optimizer"),
            dict({text("state"), dict({number(0), t}), text("param_groups"), list({})}),
            text("args"),
            global("argparse", "Namespace") + ")\x81}" + text("lr") + number(1) + "sb",
            text("loss"), t}),
      dict({text("net"),
            call(global("collections", "defaultdict"), {"N"}) + text("w") +
                call(global("torch._utils", "_rebuild_device_tensor_from_cpu_tensor"),
                     {t, global("torch", "float32"), text("xla:0"), "\x89"}) +
                "s",
            text("o"),
            "(" + global("a", "B") + t + "oq\x05h\x05"s + "a" + text("k") + "Ns(" + t + "1",
            text("s"), call(global("__builtin__", "set"), {list({t})}), global("a", "Key"),
            tuple({text("storage"), global("torch", "QInt8Storage"), text("9"), text("cpu"),
                   number(4)}) +
                "Q"}),
      dict({text("state"),
            dict({text("model"), dict({text("state_dict"), dict({text("b.w"), t})})}), text("args"),
            global("argparse", "Namespace") + ")\x81}" + text("tensor_model_parallel_size") +
                number(2) + "sb"}),
  };
}

// A file of each type, which has metadata of most kinds too.
std::vector<std::string> gguf_files() {
  namespace g = crossdock::reader_gguf;
  std::vector<std::string> out;
  for (uint32_t id = 0; id < 48; ++id) {
    const g::GgmlType* type = g::find_type(id);
    if (!type) continue;
    const uint64_t n = type->block_elems == 1 ? 5 : type->block_elems;
    out.push_back(
        g::recipe::file({g::recipe::u32_value("general.alignment", 32),
                         g::recipe::text_value("t", "x"), g::recipe::texts_value("l", {"a", "bc"})},
                        {{"w", {n}, id, g::recipe::some_blocks(*type, n / type->block_elems)},
                         {"v", {2, 1}, 0, g::recipe::some_bytes(8)}}));
  }
  return out;
}

// .metadata, of protocol 2 as ours, and as if of 4. One of torch's own is in found/dcp.
std::vector<std::string> dcp_metadata() {
  const std::string all =
      crossdock::reader_dcp::recipe::folder_for_fuzzer().files().at(".metadata");
  std::string of_4 = all;
  of_4[1] = 4;
  return {all, of_4};
}

// Pickles of two ranks.
std::vector<std::string> zero_checkpoints() {
  namespace z = crossdock::reader_zero::recipe;
  const std::string between(z::kBetween);
  const auto joined = [&](const z::Stage12& first) {
    z::Stage12 second = first;
    second.rank = 1;
    return first.optimizer_file(true) + between + second.optimizer_file(true) + between +
           first.model_file(true);
  };
  z::Stage12 elastic, bf16;
  elastic.is_elastic = true;
  bf16.zero_stage = "";
  bf16.pads_master = true;
  const z::Stage3 first, second{1};
  z::PartOf2 share{0, false}, stage{0, true};
  share.info = z::plain_info();
  const auto parts = [&](const z::PartOf2& one) {
    z::PartOf2 other = one;
    other.rank = 1;
    return one.optimizer_file(true) + between + other.optimizer_file(true) + between +
           one.model_file(true) + between + other.model_file(true) +
           (one.is_pipeline ? between + one.layer_file(true) : "");
  };
  return {joined({}),
          joined(elastic),
          joined(bf16),
          first.optimizer_file(true) + between + second.optimizer_file(true) + between +
              first.model_file(true),
          parts(share),
          parts(stage)};
}

// Pickles of the optimizer, the model and one parameter.
std::vector<std::string> universal_checkpoints() {
  namespace u = crossdock::reader_universal::recipe;
  const std::string between(u::kBetween);
  const auto joined = [&](u::Universal recipe, const std::string& fp32) {
    recipe.pickles_alone = true;
    recipe.param_shapes = u::list({u::ordered_dict({u::text("a.weight"), u::shape({2, 3})})});
    return recipe.optimizer_file() + between + recipe.model_file() + between + fp32 + between +
           fp32 + between + pickle(number(4));
  };
  const std::string row = u::elements('a', 0, 6);
  u::Universal cut;
  cut.info = u::dict({u::text("original_vocab_size"), u::number(1)});
  const std::string vocabulary = u::text("vocab_tensor") + "\x88";
  return {joined({}, u::saved(row, {2, 3}, {3, 1}, "", true)),
          joined(u::stage3(), u::bare(row, true)),
          joined({}, u::saved("0000", {2, 3}, {0, 0}, "", true)),
          joined(cut, u::saved(row, {2, 3}, {3, 1}, vocabulary, true))};
}

// A rule, a NUL byte, names of tensors.
std::vector<std::string> rules() {
  const std::string rule = crossdock::test::kComposeRule;
  const std::string layout =
      "layout { format: 'f' when { key: 'config.n' present: true } let { name: 'h' value: "
      "'{config.n}*2' } layers { from: 'blk.#.' number: '{config.n}' } tensor { to: 'l.#.e.##' "
      "part "
      "{ from: 'blk.#.exps' op { split { dim: 0 size: '?' size: '2' } } } op { unstack: true } } "
      "tensor { to: 'l.#.q' part { from: 'blk.#.q' op { unpermute_rows: '{h}' } } op { add: -1 } } "
      "excluded { from: 'rope' reason: 'r' } }";
  return {
      rule + '\0' +
          "m.l.0.moe.0.g 1 2\nm.l.0.moe.0.u 1 2\nm.l.0.moe.1.g 1 2\nm.l.0.moe.1.u\nm.l.0.moe.0.d",
      rule + '\0' +
          "qkv 6 1\nm.turned 4 3\nm.mixed 4 1\nca 3 1\ncb 2 1\nearly.0 1\nm.old_seen 1\nsame 0",
      rule + '\0' + "m.q\nm.k\nm.v\nm.l.0.gate_up\nm.l.0.down\nm.rows\nm.conv\nm.late.1",
      rule +
          " tied { name: 'm.l.#.down' to: 'm.same' when: 'yes' } layers { prefix: 'm.l.' count: "
          "'n' } choice { kind: 'a' } renamed { from: 'a(b*)' to: '$1' }" +
          '\0' + "m.same\nl.0.down",
      layout + '\0' + "blk.0.exps\nblk.1.exps\nblk.0.q\nblk.1.q\nrope"};
}

template <class T>
std::string raw(std::initializer_list<T> values) {
  return {reinterpret_cast<const char*>(values.begin()), values.size() * sizeof(T)};
}

// A model of each scheme.
std::vector<std::string> quantised_models() {
  using namespace crossdock::fuzz;
  using enum crossdock::manifest::DType;
  const std::string codes = "\x12\x34\x56\x78\x9a\xbc\xde\xf0\x01\xff";
  const std::string ones = raw<float>({1, -0.5f}), halves = raw<uint16_t>({0x3c00, 0xc200});
  const std::string brains = raw<uint16_t>({0x3f80, 0xc040});
  const auto as_long = [](std::string name, crossdock::manifest::DType dtype, std::string content) {
    return Part{std::move(name), dtype, {}, std::move(content), false, false, true};
  };
  const std::string state =
      R"({"blocksize": 4, "dtype": "bfloat16", "nested_blocksize": 2, "nested_offset": 0.5, "shape": [4, 3]})";
  const std::string groups = raw<int32_t>({0, 1, 0, 1, 0, 0, 1, 1, 0, 1, 0, 1, 0, 0, 1, 1});
  const std::string table(raw<float>({-1, -0.7f, -0.5f, -0.4f, -0.3f, -0.2f, -0.1f, 0, 0.1f, 0.2f,
                                      0.3f, 0.4f, 0.5f, 0.6f, 0.7f, 1}));
  const std::vector<Model> models{
      {.method = "fp8",
       .block = 4,
       .count = 9,
       .parts = {{"a.weight", F8_E4M3, {8, 16}, codes},
                 {"a.weight_scale_inv", F32, {2, 4}, ones},
                 {"b.weight", F8_E5M2, {3, 8, 16}, codes},
                 {"b.scale", F8_E8M0, {3, 1, 1}, codes},
                 {"bias", BF16, {16}, brains}}},
      {.method = "fp8",
       .is_made = true,
       .wanted = 1,
       .parts = {{"a.weight", I8, {4, 16}, codes},
                 {"a.scale", U8, {4, 1}, codes},
                 {"b.weight", F8_E4M3FNUZ, {4, 16}, codes, true},
                 {"b.weight_scale", F32, {}, ones}}},
      {.method = "compressed-tensors",
       .bits = 8,
       .wanted = 2,
       .count = 200,
       .parts = {{"a.weight", I8, {4, 16}, codes},
                 {"a.weight_scale", BF16, {4, 1}, brains},
                 {"a.weight_zero_point", I8, {4, 1}, codes},
                 {"a.input_scale", F32, {1}, ones},
                 {"b.weight", F8_E4M3, {512, 24}, codes, true},
                 {"b.weight_scale", F16, {512, 1}, halves}}},
      {.method = "compressed-tensors",
       .bits = 4,
       .group = 8,
       .wanted = 3,
       .count = 200,
       .parts = {{"a.weight_packed", I32, {8, 2}, codes},
                 {"a.weight_scale", F16, {8, 2}, halves},
                 as_long("a.weight_shape", I64, raw<int64_t>({8, 16})),
                 {"a.weight_zero_point", I32, {1, 2}, codes},
                 as_long("a.weight_g_idx", I32, groups)}},
      {.method = "compressed-tensors",
       .bits = 4,
       .group = 16,
       .is_made = true,
       .count = 30,
       .parts = {{"a.weight_packed", U8, {4, 16}, codes},
                 {"a.weight_scale", F8_E4M3, {4, 2}, codes},
                 {"a.weight_global_scale", F32, {1}, ones},
                 {"b.weight_packed", U8, {4, 24}, codes},
                 {"b.weight_scale", U8, {4, 1}, codes}}},
      {.method = "modelopt",
       .count = 30,
       .parts = {{"a.weight", U8, {4, 16}, codes},
                 {"a.weight_scale", F8_E4M3, {4, 2}, codes},
                 {"a.weight_scale_2", F32, {}, ones},
                 {"b.weight", F8_E4M3, {4, 16}, codes},
                 {"b.weight_scale", F32, {}, ones}}},
      {.method = "mxfp4",
       .count = 30,
       .parts = {{"a.w_blocks", U8, {2, 8, 3, 16}, codes}, {"a.w_scales", U8, {2, 8, 3}, codes}}},
      {.method = "bitsandbytes",
       .count = 30,
       .parts = {{"a.weight", U8, {2, 3}, codes},
                 {"a.weight.absmax", U8, {3}, codes},
                 {"a.weight.nested_absmax", F32, {2}, ones},
                 {"a.weight.nested_quant_map", F32, {4, 64}, ones},
                 as_long("a.weight.quant_map", F32, table),
                 as_long("a.weight.quant_state.bitsandbytes__nf4", U8, state),
                 {"b.weight", I8, {4, 16}, codes},
                 {"b.SCB", F32, {4}, ones},
                 {"b.weight_format", U8, {}, codes}}},
      {.method = "gptq",
       .bits = 4,
       .group = 8,
       .count = 100,
       .parts = {{"a.qweight", I32, {2, 8}, codes},
                 {"a.qzeros", I32, {2, 1}, codes},
                 {"a.scales", F16, {2, 8}, halves},
                 as_long("a.g_idx", I32, groups)}},
      {.method = "gptq",
       .bits = 3,
       .group = 32,
       .is_gptq_v2 = true,
       .is_made = true,
       .count = 100,
       .parts = {{"a.qweight", I32, {3, 32}, codes, true},
                 {"a.qzeros", I32, {1, 3}, codes},
                 {"a.scales", BF16, {1, 32}, brains}}},
      {.method = "awq",
       .bits = 4,
       .group = 8,
       .count = 100,
       .parts = {{"a.qweight", I32, {16, 2}, codes},
                 {"a.qzeros", I32, {2, 2}, codes},
                 {"a.scales", F16, {2, 16}, halves}}}};
  std::vector<std::string> out;
  for (const Model& model : models) out.push_back(bytes_of(model));
  return out;
}

// Headers with their data, of one file and of two ranks.
std::vector<std::string> safetensors_files() {
  using crossdock::reader_safetensors::entry;
  const std::string between(crossdock::fuzz::kBetween);
  // The header of a rank that has one box of w.
  const auto rank = [](const std::string& begin, const std::string& shape, uint64_t n_bytes,
                       const std::string& dtype = "U8") {
    return R"({"__metadata__":{"DCP_SHARDING_INFO":"{\"w\": {\"saved_offsets\": )" + begin +
           R"(}}"},)" + entry("w", dtype, shape, 0, n_bytes) + "}";
  };
  const std::string rows = rank("[0, 0]", "[1, 3]", 3) + "abc";
  return {R"({"__metadata__":{"format":"pt"},)" + entry("a", "F32", "[2, 1]", 0, 8) + "," +
              entry("b", "F4", "[3,2]", 8, 11) + "," + entry("none", "I64", "[0]", 11, 11) +
              "}   01234567abc",
          crossdock::reader_safetensors::bytes_file({"a", "b"}),
          rows + between + rank("[1, 0]", "[1, 3]", 3) + "def",
          "{" + entry("w", "BF16", "[1]", 0, 2) + "}hi" + between + rows,
          rank("[0, 0]", "[2, 1]", 4, "BF16") + "abcd" + between +
              rank("[0, 1]", "[1, 2]", 4, "BF16") + "efgh" + between +
              rank("[1, 1]", "[1, 2]", 4, "BF16") + "ijkl" + between + "{}",
          rank("[0, 0, 0]", "[2, 2, 1]", 16, "F32") + "0123456789abcdef" + between +
              rank("[0, 0, 1]", "[2, 2, 2]", 32, "F32") + std::string(32, 'v')};
}

// Indexes, names beside them, the one that SRC names.
std::vector<std::string> shard_indexes() {
  const std::string between(crossdock::fuzz::kBetween);
  const std::string parts = "model-00001-of-00002.safetensors\nmodel-00002-of-00002.safetensors";
  const std::string index =
      R"({"metadata":{"total_size":7},"weight_map":{"a":"model-00001-of-00002.safetensors",)"
      R"("b":"model-00002-of-00002.safetensors"}})";
  return {index + between + parts,
          index + between + parts + "\nmodel.safetensors\nadapter_model.safetensors",
          R"({"weight_map":{"a":"x.safetensors"}})" + between + parts,
          index + between + "mp_rank_00_model_states.pt\nconsolidated.00.safetensors" + between +
              "model-00002-of-00002.safetensors",
          index + between + "tp_rank_1.pt\nm_1.pt" + between + "m_0.pt",
          index + between + "model.fp16.safetensors\nmodel.safetensors.index.fp16.json" + between +
              between};
}

std::vector<std::string> manifests() {
  using namespace crossdock::manifest;
  Manifest m;
  m.source = {"f", {{"x", 64, "sha256:1"}}, {{"k", {1.5}}}, {}};
  ValueMap config;
  config.entries = {{"s", {std::string("v")}},
                    {"l", {ValueList{{{Null{}}, {true}, {int64_t{-2}}, {uint64_t{3}}}}}},
                    {"b", {Bytes{"\xff"}}}};
  m.source.config.kind = config;
  Tensor plain, view;
  plain.name = "a";
  plain.dtype = DType::BF16;
  plain.shape = {2, 3};
  plain.extents = {{0, 0, 12}};
  plain.role = Role::kParameter;
  plain.target_name = "m.a";
  plain.parallel.sub_sizes = {1, 2};
  view = plain;
  view.name = "b";
  view.strides = {1, 2};
  view.storage_offset = 1;
  view.storage_elements = 7;
  view.extents = {{0, 12, 14}};
  m.tensors = {plain, view};
  m.alias_groups = {{{0, 1}}};
  m.training.step = 3;
  m.training.optimizer = "adam";
  m.training.groups = {{{0}, {{"lr", {0.1}}}}};
  m.training.moments = {{"exp_avg", 0, 1}};
  m.aux_files = {{AuxKind::kUnspecified, "c.json", Bytes{"{}"}},
                 {AuxKind::kUnspecified, "t.json", std::string("t.json")}};
  m.provenance = {{"t", "p", "i"}};
  m.module = {{"m.a", 0}};
  return {encode(m), encode(Manifest())};
}

std::vector<std::string> reports() {
  crossdock::report::Report r;
  r.crossdock = "0.1.0";
  r.source = {
      "org/name", "/m/name", "gguf/3", {{"a.gguf", 22, "", ""}, {"b.gguf", 3, "sha256:1", ""}}, {}};
  r.reader = {"reader", "1.0", {{"verify", {"true"}}}};
  r.writer = {"writer", "2.0", {{"pattern", {"a"}}, {"frozen", {"a", "b"}}}};
  r.notes = {"a \"note\""};
  r.tensors = {{"w", "m.w", "parameter", "BF16", {2, 3}, "tree:aa", "transpose(w)", {"w.pt"}, ""},
               {"t", "t", "parameter", "BF16", {}, "tree:cc", "", {}, "tied to w"}};
  r.files = {{"w.pt", 24, "tree:01"}};
  r.timings = {{"plan", 0.25}};
  // Without the digest at its end, which the fuzzer appends.
  const std::string text = crossdock::report::to_json(r);
  return {text.substr(0, text.rfind(",\n    \"report_digest\"")) + "\n  }\n}\n"};
}

std::vector<std::string> journals() {
  namespace convert = crossdock::convert;
  convert::Record item;
  item.file = 3;
  item.item = 1;
  item.result = "crc";
  item.bytes = {{64, 4160}};
  item.nodes = {{0, 1, {1, 2}}};
  item.tensors = {{2, {{1, 0, {3, 4}}}, {{8192, "part"}}}};
  item.notes = {"a note"};
  convert::Record file;
  file.file = 4;
  file.digest = "tree:0";
  file.rests = item.tensors;
  const auto path = std::filesystem::temp_directory_path() / "crossdock-seed.journal";
  std::filesystem::remove(path);
  {
    auto journal = crossdock::io::Journal::create(crossdock::io::Os::real(), path.string());
    if (!journal || !(*journal)->append(convert::encode(item)) || !(*journal)->mark(60) ||
        !(*journal)->append(convert::encode(file)))
      std::abort();
  }
  std::ifstream in(path, std::ios::binary);
  const std::string journal{std::istreambuf_iterator<char>(in), {}};
  std::filesystem::remove(path);
  const std::string plan =
      R"({"crossdock plan": 1, "id": "tree:9", "source": "/s", "arguments": ["--to=y"], )"
      R"("same": {"crossdock": "0.1.0", "reader": {"id": "r", "version": "1", "options": {}}, )"
      R"("writer": {"id": "w", "version": "1", "options": {"dtype": ["fp16"], "x": ["1", "2"]}}, )"
      R"("files": {"a": {"size": 1, "modified": 3}}, "model": "tree:2", "plan": "tree:3"}})";
  return {"J" + journal, "R" + convert::encode(item), "R" + convert::encode(file), "P" + plan};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const std::string name = argv[1];
  std::vector<std::string> seeds;
  const bool is_torch = name == "pickle" || name == "torch_file";
  if (name == "gguf") seeds = gguf_files();
  if (name == "rules") seeds = rules();
  if (name == "quantised") seeds = quantised_models();
  if (name == "dcp") seeds = dcp_metadata();
  if (name == "zero") seeds = zero_checkpoints();
  if (name == "universal") seeds = universal_checkpoints();
  if (name == "safetensors") seeds = safetensors_files();
  if (name == "shards") seeds = shard_indexes();
  if (name == "manifest") seeds = manifests();
  if (name == "report") seeds = reports();
  if (name == "journal") seeds = journals();
  for (const std::string& value : is_torch ? values() : std::vector<std::string>()) {
    if (name == "pickle") {
      seeds.push_back(pickle(value));
      continue;
    }
    const std::vector<Stored> storages{{"0", "ABCDefgh"}, {"1", "abcdefgh"}};
    seeds.push_back(torch_zip(value, storages));
    seeds.push_back(torch_zip(value, storages, true, "big"));
    seeds.push_back(legacy_file(value, storages));
    seeds.push_back(legacy_file(value, {storages[0]}));
  }
  std::filesystem::create_directories(argv[2]);
  for (size_t i = 0; i < seeds.size(); ++i) {
    std::ofstream(std::filesystem::path(argv[2]) / ("seed" + std::to_string(i)), std::ios::binary)
        << seeds[i];
  }
}
