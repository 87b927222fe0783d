// SPDX-License-Identifier: Apache-2.0

// The state of a training run, on its way from a reader that knows it to a writer that does.
#pragma once

#include <crossdock/manifest_wire.hpp>
#include <crossdock/result.hpp>

#include <optional>
#include <string>
#include <vector>

namespace crossdock::convert {

// Tensors of optimizers are none of the model's: while names, experts and tied weights are worked
// out they are left out, so that no rule is held against them.
void hide_optimizer_state(manifest::Manifest& m);

// Gives them back, under the names of their parameters in the job, where the parameter is trained;
// the others stay left out. Without a single one the run has not begun.
void show_optimizer_state(manifest::Manifest& m);

// For a writer that has no place for a training run.
void leave_training_out(manifest::Manifest& m, std::vector<std::string>& notes);

// What the source itself says of the job's module: its names in order, tied ones, groups. Nothing:
// it says nothing, as files of weights alone do. After all names are given.
std::optional<manifest::Manifest> module_of_source(const manifest::Manifest& m);

}  // namespace crossdock::convert
