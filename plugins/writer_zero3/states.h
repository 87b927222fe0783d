// SPDX-License-Identifier: Apache-2.0

// What is in the two files of a rank.
#pragma once

#include "plugins/writer_zero3/layout.h"

namespace crossdock::writer_zero3 {

torch_write::Content model_states(const manifest::Manifest& model, const Layout& layout,
                                  const Settings& settings, uint64_t rank);
torch_write::Content optimizer_states(const manifest::Manifest& model, const Layout& layout,
                                      const Settings& settings, uint64_t rank);

std::string model_states_name(uint64_t rank);
std::string optimizer_states_name(const Settings& settings, uint64_t rank);

}  // namespace crossdock::writer_zero3
