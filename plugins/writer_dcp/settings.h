// What the user asked of the writer, checked.
#pragma once

#include "plugins/common/float_cast.h"

namespace crossdock::writer_dcp {

// Whose folder it is: how names are spelled, and where the files lie.
enum class Profile { kPlain, kAccelerate };

struct Settings {
  common::FloatCast cast;
  Profile profile = Profile::kPlain;
  uint64_t n_shards = 1;

  static Result<Settings> from(const Options& options);
};

extern const xd_option_desc* const kOptions[];

}  // namespace crossdock::writer_dcp
