// fuzz_seeds NAME DIR: writes the first inputs of a fuzzer, from the recipes that the unit tests
// use.
#include <filesystem>
#include <fstream>
#include <iostream>

#include "plugins/reader_gguf/recipes_for_test.h"
#include "plugins/reader_zero/recipes_for_test.h"
#include "plugins/torch/read/recipes_for_test.h"
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
  return {joined({}), joined(elastic), joined(bf16),
          first.optimizer_file(true) + between + second.optimizer_file(true) + between +
              first.model_file(true)};
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

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const std::string name = argv[1];
  std::vector<std::string> seeds;
  const bool is_torch = name == "pickle" || name == "torch_file";
  if (name == "gguf") seeds = gguf_files();
  if (name == "rules") seeds = rules();
  if (name == "zero") seeds = zero_checkpoints();
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
