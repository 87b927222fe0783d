// SPDX-License-Identifier: Apache-2.0

// What the behaviour suites of plugins have in common.
#pragma once

#include "tests/catch.h"
#include <crossdock/testing/memory_host.h>

#include <string>
#include <string_view>

namespace crossdock::test {

inline bool has(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

// The linked reader over the host's inputs.
inline auto open(MemoryHost& host, const OptionValues& options = {}) {
  return run_reader(host, linked_plugin(host), options);
}

// run(host) goes well, and when any one call of the host fails, it fails with the host's code and
// message and keeps nothing. Gives the number of calls.
template <class Run>
uint64_t check_every_fault(Run&& run) {
  MemoryHost good;
  REQUIRE(run(good));
  for (uint64_t n = 1; n <= good.calls; ++n) {
    CAPTURE(n);
    MemoryHost host;
    host.fail_at = n;
    const auto result = run(host);
    REQUIRE_FALSE(result);
    CHECK((result.error().code == XD_IO || result.error().code == XD_NO_MEMORY));
    CHECK((has(result.error().message, "injected fault") ||
           has(result.error().message, "memory budget")));
    CHECK(host.allocated == 0);
  }
  return good.calls;
}

}  // namespace crossdock::test
