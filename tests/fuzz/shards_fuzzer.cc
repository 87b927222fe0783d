// SPDX-License-Identifier: Apache-2.0

// Any bytes as the index of shards, and any names beside it: which files are the model, and whether
// they hold what the index lists. The input: the index, which is config.json too, names a line
// each, the one that SRC names.
#include "plugins/common/hf_weights.h"
#include "tests/fuzz/cut.h"
#include <crossdock/testing/memory_host.h>

using namespace crossdock;

namespace {

constexpr std::string_view kStems[] = {"model", "consolidated"};
constexpr std::string_view kOthers[] = {".pt"};
constexpr common::WeightNames kNames{
    kStems, ".safetensors", kOthers, "adapter_model.safetensors", 100, 75};

// No file system has names with a NUL.
std::string name_of(std::string_view text) { return std::string(text.substr(0, text.find('\0'))); }

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto parts = fuzz::cut({reinterpret_cast<const char*>(data), size});
  test::MemoryHost host;
  std::vector<std::string> names;
  if (parts.size() > 1) {
    for (const std::string_view name : fuzz::cut(parts[1], "\n")) host.inputs[name_of(name)] = "";
  }
  if (parts.size() > 2) host.named = name_of(parts[2]);
  if (!host.named.empty()) host.inputs[host.named] = "";
  // Last, so that a name that is theirs does not empty them.
  host.inputs["config.json"] = host.inputs["model.safetensors.index.json"] = parts[0];
  for (const auto& [name, content] : host.inputs) names.push_back(name);
  const int score = common::score(names, kNames);
  if (score < 0 || score > kNames.standard_score) __builtin_trap();

  (void)common::read_config(host.api(), Input(host.input()), names);

  const auto index = common::parse_shard_index(parts[0]);
  const std::string variant = parts.size() > 3 ? "fp16" : "";
  const Host api = host.api();
  const auto chosen = common::choose_files(api, Input(host.input()), kNames, variant);
  if (!chosen) return 0;
  if (chosen->files.empty() || (chosen->index && !index && host.named.empty())) __builtin_trap();
  for (const std::string& file : chosen->files) {
    if (!host.inputs.contains(file)) __builtin_trap();
  }
  std::vector<common::PlacedTensor> placed{{"a", 0}};
  if (chosen->index) {
    for (const auto& entry : chosen->index->weight_map)
      placed.push_back({entry.tensor, static_cast<uint32_t>(entry.shard % chosen->files.size())});
  }
  (void)common::check_placed(api, *chosen, placed);
  common::compare_total_size(api, *chosen, size);
  return 0;
}
