// SPDX-License-Identifier: Apache-2.0

// A rule with all ways in which files hold parameters: the unit tests compose with it, the fuzzer
// begins with it.
#pragma once

namespace crossdock::test {

inline constexpr char kComposeRule[] = R"(
  model_type: "x" architecture: "X"
  parameter { name: "m.l.#.gate_up" dim: "experts" from { stack: true part { concat: 0
    part { from: "m.l.#.moe.##.g" } part { from: "m.l.#.moe.##.u" } } } }
  parameter { name: "m.l.#.down" from { stack: true part { from: "m.l.#.moe.##.d" op { transpose: true } } }
    from { from: "m.l.#.fused" } }
  parameter { name: "m.q" from { from: "qkv" op { chunk { dim: 0 index: 0 of: 3 } } op { unpermute_rows: "1" } } }
  parameter { name: "m.k" from { from: "qkv" op { chunk { dim: 0 index: 1 of: 3 } } } }
  parameter { name: "m.v" from { from: "qkv" op { chunk { dim: 0 index: 2 of: 3 } } } }
  parameter { name: "m.turned" dim: "rows" dim: "2*columns" from { from: "m.turned" op { transpose: true } } }
  parameter { name: "m.rows" from { from: "m.mixed" op { split { dim: 0 size: "?" size: "2" } }
    op { permute { dim: 1 dim: 0 dim: 2 } } op { merge { dim: 0 count: 2 } } } }
  parameter { name: "m.conv" from { concat: 0 part { from: "ca" size: "{config.rows}" } part { from: "cb" size: "2" } } }
  parameter { name: "m.late.#" from { from: "early.#-1" } }
  parameter { name: "m.same" }
  buffer { name: "m.seen" from { from: "m.old_seen" } }
  base { prefix: "m." })";

}  // namespace crossdock::test
