// SPDX-License-Identifier: Apache-2.0

// config.json by a layout's entries (rules.proto, ConfigEntry).
#pragma once

#include "core/rules/layout.h"
#include "core/rules/variables.h"

namespace crossdock::rules {

Result<Config> make_config(const rules::v1::Layout& layout, const Variables& variables,
                           const manifest::Manifest& m, const ReadTensor& read);

}  // namespace crossdock::rules
