// SPDX-License-Identifier: Apache-2.0
#include "apps/crossdock/log.h"

#include "apps/crossdock/verbs.h"
#include "core/base/text.h"

#include <fmt/format.h>

#include <atomic>

namespace crossdock::app {

namespace {
std::atomic<int32_t> log_level{XD_LOG_WARN};
}  // namespace

const char* shown_level(int32_t level) {
  if (level < log_level) return nullptr;
  return level == XD_LOG_DEBUG ? "debug" : level == XD_LOG_INFO ? "info" : "warning";
}

void show_log(int32_t level, const std::string& message) {
  if (const char* name = shown_level(level))
    say(fmt::format("crossdock: {}: {}\n", name, base::printable(message)));
}

void set_log_level(const std::string& level) {
  log_level = level == "debug"  ? XD_LOG_DEBUG
              : level == "info" ? XD_LOG_INFO
              : level == "warn" ? XD_LOG_WARN
                                : XD_LOG_PLUGIN_BUG;
}

Session open_session(const std::vector<std::string>& args, uint64_t memory) {
  return Session(args, memory, cancelled, show_log);
}

}  // namespace crossdock::app
