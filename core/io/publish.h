// SPDX-License-Identifier: Apache-2.0

// The one moment in which a finished tree becomes OUT (staging.h).
#pragma once

#include "core/io/os.h"

#include <boost/filesystem/path.hpp>

namespace crossdock::io {

namespace fs = boost::filesystem;

// Whether a folder is at DST that a publication would replace; an error when something is there
// that may not be.
Result<bool> check_destination(const fs::path& destination, bool overwrite);

struct Publication {
  fs::path tree, destination;
  uint64_t tree_inode = 0;  // by which the tree is known: after an exchange the old OUT is there
  fs::path control;         // a folder of the same file system, for locks and what is replaced
  bool overwrite = false;
};

// Renames the tree. Any number of processes may try: one does it, for the others the tree is gone
// (XD_NOT_FOUND), and OUT is never anything between the old and the new one. What was replaced is
// in the tree's place, or in `control`.
Result<void> publish(Os& os, const Publication& publication);

// Everything in `folder` goes, the marker `last` of it at the end, so that a removal that is cut
// short still leaves a folder known as ours.
Result<void> remove_tree(const fs::path& folder, const std::string& last);

}  // namespace crossdock::io
