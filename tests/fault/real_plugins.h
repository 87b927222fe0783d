// SPDX-License-Identifier: Apache-2.0

// The project's own plugins, loaded once for a test program.
#pragma once

#include "core/plugin/host.h"
#include "core/plugin/registry.h"

#include <atomic>

namespace crossdock::test {

inline const plugin::Registry& registry() {
  static const std::atomic<bool> never{false};
  static base::Memory memory(1 << 20);
  static plugin::Host host(io::Os::real(), memory, never);
  static const auto loaded = plugin::Registry::load({CROSSDOCK_TEST_PLUGINS}, host);
  return loaded;
}

}  // namespace crossdock::test
