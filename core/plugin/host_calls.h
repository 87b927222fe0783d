// SPDX-License-Identifier: Apache-2.0

// The functions that the host offers to plugins, each as plugin.h promises it.
#pragma once

#include <crossdock/plugin.h>

namespace crossdock::plugin {

xd_host host_table();

}  // namespace crossdock::plugin
