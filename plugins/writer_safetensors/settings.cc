// SPDX-License-Identifier: Apache-2.0
#include "plugins/writer_safetensors/settings.h"

namespace crossdock::writer_safetensors {
namespace {

constexpr xd_option_desc kShardSize = {
    XD_INIT_SIZE(xd_option_desc),
    0,
    "shard-size",
    "size",
    "5GB",
    "the most bytes of tensors in one file; a larger tensor has a file of its own"};

}  // namespace

const xd_option_desc* const kOptions[] = {&common::kDtypeOption, &kShardSize,
                                          &common::kAllowOverflowOption, nullptr};

Result<Settings> Settings::from(const Options& options) {
  const Settings out{common::FloatCast::from(options), options.number("shard-size")};
  if (out.shard_bytes == 0)
    return invalid("--shard-size: expected at least 1 byte, found 0: try 5GB");
  return out;
}

}  // namespace crossdock::writer_safetensors
