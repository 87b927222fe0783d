// plugin.h needs nothing before it, and is C++ too.
#include <crossdock/plugin.h>

#include <type_traits>

static_assert(std::is_standard_layout_v<xd_host> && std::is_trivial_v<xd_host>);
static_assert(std::is_standard_layout_v<xd_plugin_desc> && std::is_trivial_v<xd_plugin_desc>);
static_assert(sizeof(xd_status) == 4);

int abi_header_cxx20() {
  const xd_library library = {XD_INIT_SIZE(xd_library), 0, nullptr, nullptr};
  return XD_HAS(&library, xd_library, get_extension) ? XD_OK : XD_INTERNAL;
}
