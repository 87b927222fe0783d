// SPDX-License-Identifier: Apache-2.0

// Pickles as the files of a DeepSpeed checkpoint of two ranks, data-parallel ones and then
// model-parallel ones: of their optimizer states, of the model states, which may be the same of
// both, and of a pipeline's layer. Each gets the storages that it names. Read are the last elements
// of every tensor.
#include "plugins/reader_zero/checkpoint.h"
#include "plugins/reader_zero/recipes_for_test.h"
#include "tests/fuzz/torch_files.h"
#include <crossdock/testing/memory_host.h>

using namespace crossdock;
namespace recipe = reader_zero::recipe;

namespace {

void read(const std::map<std::string, std::string>& inputs) {
  test::MemoryHost host;
  host.budget = 256 << 20;
  host.inputs = {inputs.begin(), inputs.end()};
  const Host api = host.api();
  for (const auto weights : {reader_zero::Weights::kMaster, reader_zero::Weights::kModel}) {
    const auto checkpoint =
        reader_zero::open_checkpoint(api, Input(host.input()), "", weights, false);
    if (!checkpoint) continue;
    for (size_t i = 0; i < checkpoint->contents.size(); ++i) {
      const reader_zero::Content& content = checkpoint->contents[i];
      const uint64_t count = std::min<uint64_t>(content.n_elems(), 64);
      std::vector<std::byte> out(count *
                                 manifest::info(checkpoint->manifest.tensors[i].dtype).bits / 8);
      // What open() took lies inside the files, and all storages hold the same values.
      if (!content.read(api, checkpoint->sources, content.n_elems() - count, out)) __builtin_trap();
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto files =
      fuzz::files_of({reinterpret_cast<const char*>(data), size}, recipe::kBetween, 5);
  if (files.size() < 3) return 0;
  const std::string& second = files[std::min<size_t>(3, files.size() - 1)];
  read({{recipe::optimizer_name(0, ""), files[0]},
        {recipe::optimizer_name(1, ""), files[1]},
        {recipe::model_name(0, ""), files[2]},
        {recipe::model_name(1, ""), second},
        {"mp_rank_00_model_states.pt", files[2]}});
  read({{"zero_pp_rank_0_mp_rank_00_optim_states.pt", files[0]},
        {"zero_pp_rank_0_mp_rank_01_optim_states.pt", files[1]},
        {"mp_rank_00_model_states.pt", files[2]},
        {"mp_rank_01_model_states.pt", second},
        {"layer_00-model_states.pt", files.back()},
        {"layer_02-model_states.pt", files.back()}});
  return 0;
}
