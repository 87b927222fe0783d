// config.json by a layout's entries (rules.proto, ConfigEntry).
#pragma once

#include "core/layout/layout.h"
#include "core/layout/variables.h"

namespace crossdock::layout {

Result<Config> make_config(const rules::v1::Layout& layout, const Variables& variables,
                           const manifest::Manifest& m, const ReadTensor& read);

}  // namespace crossdock::layout
