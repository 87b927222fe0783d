// SPDX-License-Identifier: Apache-2.0

// What the command says while it works, on stderr.
#pragma once

#include "apps/command/session.h"

#include <cstdint>
#include <string>
#include <vector>

namespace crossdock::app {

// Messages of plugins and of the host: warnings, or from the level that was set on.
void show_log(int32_t level, const std::string& message);
// Its name, if messages of this level are shown; else null.
const char* shown_level(int32_t level);
// One of kLogLevels.
void set_log_level(const std::string& level);

// A session of this process: signals cancel it, and its messages are shown.
Session open_session(const std::vector<std::string>& args, uint64_t memory);

}  // namespace crossdock::app
