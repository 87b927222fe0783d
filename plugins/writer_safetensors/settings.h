// SPDX-License-Identifier: Apache-2.0

// What the user asked of the writer, checked.
#pragma once

#include "plugins/common/float_cast.h"

namespace crossdock::writer_safetensors {

struct Settings {
  common::FloatCast cast;
  uint64_t shard_bytes = 0;

  static Result<Settings> from(const Options& options);
};

extern const xd_option_desc* const kOptions[];

}  // namespace crossdock::writer_safetensors
