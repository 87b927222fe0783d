// SPDX-License-Identifier: Apache-2.0
#include "plugins/torch/write/deepspeed_states.h"

#include <algorithm>

namespace crossdock::torch_write {

// The job's module says which names are tied; without it, what the core left out as another name of
// a tensor that stays.
void put_shared_params(PickleWriter& p, const manifest::Manifest& model) {
  p.dict([&] {
    for (const auto& [name, i] : model.module) {
      if (name != model.tensors[i].target()) p.entry(name, model.tensors[i].target());
    }
    if (!model.module.empty()) return;
    for (const manifest::AliasGroup& group : model.alias_groups) {
      const auto kept = std::find_if(group.tensors.begin(), group.tensors.end(),
                                     [&](uint64_t i) { return model.tensors[i].excluded.empty(); });
      if (kept == group.tensors.end()) continue;
      for (const uint64_t i : group.tensors) {
        if (!model.tensors[i].excluded.empty())
          p.entry(model.tensors[i].target(), model.tensors[*kept].target());
      }
    }
  });
}

void put_parallel_dimensions(PickleWriter& p) {
  p.entry("checkpoint_parallel_dimensions", [&] {
    p.dict([&] {
      p.entry("pp_degree", 1);
      p.entry("tp_degree", 1);
    });
  });
}

}  // namespace crossdock::torch_write
