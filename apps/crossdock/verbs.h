// SPDX-License-Identifier: Apache-2.0

// What all verbs share: how they end, and how they say so. Each parses its own arguments, prints,
// and returns the exit code.
#pragma once

#include <crossdock/result.hpp>

#include <atomic>
#include <string>
#include <vector>

namespace crossdock::app {

// 0 done, 1 failed, 2 usage, 130 cancelled.
enum ExitCode { kDone = 0, kFailed = 1, kUsage = 2, kCancelled = 130 };

// Turned true by SIGINT, SIGTERM and SIGHUP.
extern std::atomic<bool> cancelled;

// Text for stderr. Nobody may be reading it, and that must not end a conversion: a failure is not
// told.
void say(const std::string& text);

// Prints "crossdock: error: ..." and gives the exit code that belongs to it.
int fail(const Error& error);
// The same for a wrong command line, with a hint where to read on.
int usage_error(const std::string& message, const std::string& verb);

}  // namespace crossdock::app
