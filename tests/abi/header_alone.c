/* plugin.h needs nothing before it. Compiled as C99 without extensions. */
#include <crossdock/plugin.h>

static const xd_module module = {XD_INIT_SIZE(xd_module), 0, 0, 0};

int abi_header_c99(void) { return XD_HAS(&module, xd_module, get_extension) ? XD_OK : XD_INTERNAL; }
