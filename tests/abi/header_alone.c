/* plugin.h needs nothing before it. Compiled as C99 without extensions. */
#include <crossdock/plugin.h>

static const xd_library library = {XD_INIT_SIZE(xd_library), 0, 0, 0};

int abi_header_c99(void) { return XD_HAS(&library, xd_library, get_extension) ? XD_OK : XD_INTERNAL; }
