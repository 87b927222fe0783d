// SPDX-License-Identifier: Apache-2.0

// Whole checkpoints of two ranks in a host in memory, and what the linked reader makes of them.
#pragma once

#include "plugins/reader_zero/recipes_for_test.h"
#include "tests/support/plugin_checks.h"

#include <functional>

namespace crossdock::reader_zero::recipe {

using Change3 = std::function<void(Stage3&)>;
using Change12 = std::function<void(Stage12&)>;

// Both ranks' files; `change` is asked for each rank.
inline void put_stage3(test::MemoryHost& host, const Change3& change = {}) {
  host.inputs["latest"] = "step7";
  for (int rank = 0; rank < 2; ++rank) {
    Stage3 r{rank};
    if (change) change(r);
    host.inputs[optimizer_name(rank)] = r.optimizer_file();
    host.inputs[model_name(rank)] = r.model_file();
  }
}
inline void put_stage12(test::MemoryHost& host, const Change12& change = {}) {
  host.inputs["latest"] = "step7";
  for (int rank = 0; rank < 2; ++rank) {
    Stage12 r{rank};
    if (change) change(r);
    host.inputs[optimizer_name(rank)] = r.optimizer_file();
    if (rank == 0) host.inputs["step7/mp_rank_00_model_states.pt"] = r.model_file();
  }
}

// The message of the refusal, or "read".
inline std::string outcome(test::MemoryHost& host, const test::OptionValues& options = {}) {
  const auto reader = test::open(host, options);
  return reader ? "read" : reader.error().message;
}
inline std::string of_stage3(const Change3& change) {
  test::MemoryHost host;
  put_stage3(host, change);
  return outcome(host);
}
inline std::string of_stage12(const Change12& change) {
  test::MemoryHost host;
  put_stage12(host, change);
  return outcome(host);
}

}  // namespace crossdock::reader_zero::recipe
