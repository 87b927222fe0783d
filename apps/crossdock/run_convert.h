// SPDX-License-Identifier: Apache-2.0

// Runs a conversion that was parsed, and prints what came of it.
#pragma once

#include "apps/command/convert_args.h"

namespace crossdock::app {

int run_convert(const ConvertArgs& args, const Session& session);

}  // namespace crossdock::app
