/* SPDX-License-Identifier: Apache-2.0 */

/* The headers need nothing before them. Compiled as C99 without extensions. */
#include <crossdock/extensions.h>

static const xd_library library = {XD_INIT_SIZE(xd_library), 0, 0};

int abi_header_c99(void) { return XD_HAS(&library, xd_library, plugins) ? XD_OK : XD_INTERNAL; }
