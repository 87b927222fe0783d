// The file .metadata: what torch.distributed.checkpoint knows of a folder.
#pragma once

#include <string>

#include "plugins/writer_dcp/layout.h"

namespace crossdock::writer_dcp {

inline constexpr std::string_view kMetadataFile = ".metadata";

// A pickle of torch.distributed.checkpoint.metadata.Metadata.
std::string metadata_of(const Layout& layout, Profile profile);

}  // namespace crossdock::writer_dcp
