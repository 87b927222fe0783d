// SPDX-License-Identifier: Apache-2.0

// Pickles as the files of a universal checkpoint: the optimizer's state, the model states, then
// fp32.pt, exp_avg.pt and step.pt of one parameter, which all others have too. Each gets the
// storages that it names. Read are the last elements of every tensor.
#include "plugins/reader_universal/checkpoint.h"
#include "plugins/reader_universal/recipes_for_test.h"
#include "tests/fuzz/torch_files.h"
#include <crossdock/testing/memory_host.h>

using namespace crossdock;
namespace recipe = reader_universal::recipe;

namespace {

// What open() took lies inside the files.
void read_ends(const Host& host, const deepspeed::Checkpoint& checkpoint) {
  for (size_t i = 0; i < checkpoint.segments.size(); ++i) {
    const common::Segments& segments = checkpoint.segments[i];
    const uint64_t count = std::min<uint64_t>(segments.n_elems(), 64);
    std::vector<std::byte> out(count * manifest::info(checkpoint.manifest.tensors[i].dtype).bits /
                               8);
    if (!segments.read(host, checkpoint.sources, segments.n_elems() - count, out)) __builtin_trap();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto files =
      fuzz::files_of({reinterpret_cast<const char*>(data), size}, recipe::kBetween, 5);
  if (files.size() < 4) return 0;
  const std::string& model = files[1];
  recipe::Files inputs{{"zero/optimizer_state.pt", files[0]}};
  for (const char* name : {"a.weight", "b", "held"}) {
    inputs[cat("zero/", name, "/fp32.pt")] = files[2];
    inputs[cat("zero/", name, "/exp_avg.pt")] = files[3];
    inputs[cat("zero/", name, "/step.pt")] = files.back();
  }
  for (const bool is_stage3 : {false, true}) {
    test::MemoryHost host;
    host.budget = 256 << 20;
    host.inputs = inputs;
    if (is_stage3) {
      host.inputs["zero_pp_rank_0_mp_rank_00_model_states.pt"] = model;
      host.inputs["zero_pp_rank_1_mp_rank_00_model_states.pt"] = model;
    } else {
      host.inputs["mp_rank_00_model_states.pt"] = model;
    }
    const Host api = host.api();
    for (const auto weights : {deepspeed::Weights::kMaster, deepspeed::Weights::kModel}) {
      const auto checkpoint =
          reader_universal::open_checkpoint(api, Input(host.input()), "", weights, false);
      if (checkpoint) read_ends(api, *checkpoint);
    }
  }
  return 0;
}
