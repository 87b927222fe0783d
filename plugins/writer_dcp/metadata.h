// SPDX-License-Identifier: Apache-2.0

// The file .metadata: what torch.distributed.checkpoint knows of a folder.
#pragma once

#include <string>

#include "plugins/writer_dcp/layout.h"

namespace crossdock::writer_dcp {

inline constexpr std::string_view kMetadataFile = ".metadata";

// A pickle of torch.distributed.checkpoint.metadata.Metadata. `prefix`: the keys that lead to the
// model in the state dict.
std::string metadata_of(const Layout& layout, const std::vector<std::string>& prefix);

}  // namespace crossdock::writer_dcp
