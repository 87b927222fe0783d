// SPDX-License-Identifier: Apache-2.0

// The headers need nothing before them, and are C++ too.
#include <crossdock/extensions.h>

#include <type_traits>

static_assert(std::is_standard_layout_v<xd_host> && std::is_trivial_v<xd_host>);
static_assert(std::is_standard_layout_v<xd_plugin_desc> && std::is_trivial_v<xd_plugin_desc>);
static_assert(sizeof(xd_status) == 4);

int abi_header_cxx20() {
  const xd_library library = {XD_INIT_SIZE(xd_library), 0, nullptr};
  return XD_HAS(&library, xd_library, plugins) ? XD_OK : XD_INTERNAL;
}
