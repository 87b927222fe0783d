// SPDX-License-Identifier: Apache-2.0

// What the user asked of the writer, checked.
#pragma once

#include <string>
#include <vector>

#include "plugins/common/float_cast.h"

namespace crossdock::writer_dcp {

// Whose folder it is: where its files lie, and under which keys the state dict has the model.
enum class Profile { kPlain, kAccelerate, kTorchtitan };

struct Settings {
  common::FloatCast cast;
  Profile profile = Profile::kPlain;
  uint64_t n_shards = 1;
  std::vector<std::string> prefix;  // the keys that lead to the model in the state dict

  static Result<Settings> from(const Options& options);
};

extern const xd_option_desc* const kOptions[];

}  // namespace crossdock::writer_dcp
