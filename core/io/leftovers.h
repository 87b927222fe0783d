// SPDX-License-Identifier: Apache-2.0

// What runs leave beside OUT when they are killed (staging.h): whose it is, and its removal.
#pragma once

#include "core/io/os.h"

#include <boost/filesystem/path.hpp>

#include <functional>
#include <string>
#include <vector>

namespace crossdock::io {

namespace fs = boost::filesystem;

// Marks an OUT.partial as ours from its first moment on, so that a later run may clear it.
inline constexpr char kMarker[] = ".crossdock-partial";
// How the name of one ends that is being removed.
inline constexpr char kRemoved[] = ".removed.partial";

fs::path partial_of(const fs::path& destination);

// Whether a folder that stands in OUT.partial's place is ours: empty, or marked.
bool is_ours(const fs::path& folder);
Error not_ours(const fs::path& partial);

// What publications that were killed had no time to remove.
std::vector<fs::path> being_removed(const fs::path& destination);

// What a publication that was cut short moved aside comes back before the rest is removed. Errors:
// something else is in its place.
Result<void> bring_back(Os& os, const fs::path& partial, const fs::path& destination);

// All of a regular file of some GiB at most.
Result<std::string> read_text(Os& os, const fs::path& path);

// Removes what is left beside a published OUT by runs of which `difference` says nothing (of their
// plan), if none of them works.
void clear_leftovers(Os& os, const fs::path& destination,
                     const std::function<std::string(const std::string& theirs)>& difference);

// What `crossdock clean DST` does: removes OUT.partial, and what a publication could not remove.
// Errors: one that is not ours, or that a live run of this machine holds. False: there was nothing.
Result<bool> clear_staging(Os& os, const fs::path& destination);

}  // namespace crossdock::io
