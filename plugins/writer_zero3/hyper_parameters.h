// SPDX-License-Identifier: Apache-2.0

// The optimizer of the job and its groups' hyper-parameters. Loading the checkpoint replaces the
// job's own lr, betas, eps and weight decay by these, so there is no default for what jobs differ
// in.
#pragma once

#include <string>
#include <vector>

#include "plugins/writer_zero3/settings.h"

namespace crossdock::writer_zero3 {

// The class: the flag's, that of --ds-config, or what --target tells (`described`, empty when
// nothing does). Errors: two of them differ, another class.
Result<Optimizer> choose_optimizer(const Settings& settings, const std::string& described);

// Completes every group of the model as torch's add_param_group does: its own values stay, what it
// has none for comes from the flag, then from --ds-config. An optimizer that --target describes
// tells its own default in every group, so there a flag replaces what all groups have alike.
// Returns what the user must know of it.
Result<std::vector<std::string>> complete_groups(const Settings& settings, Optimizer optimizer,
                                                 manifest::TrainingState& training);

}  // namespace crossdock::writer_zero3
