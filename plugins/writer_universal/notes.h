// SPDX-License-Identifier: Apache-2.0

// What the user must know about a converted checkpoint: goes into the report.
#pragma once

#include <string>
#include <vector>

#include "plugins/writer_universal/content.h"

namespace crossdock::writer_universal {

// Only those that apply.
std::vector<std::string> notes(const manifest::Manifest& model, const Parts& parts,
                               const Settings& settings);

}  // namespace crossdock::writer_universal
