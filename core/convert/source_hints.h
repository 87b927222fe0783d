// SPDX-License-Identifier: Apache-2.0

// What a source's names tell beyond what a reader makes of it: for notes and for messages.
#pragma once

#include "core/io/input.h"

#include <crossdock/manifest_wire.hpp>

#include <string>
#include <vector>

namespace crossdock::convert {

// What a folder holds of which no reader is sure, by the names that other programs give their
// files, and the tool that makes a model of it: "a DeepSpeed checkpoint: ...". Empty when nothing
// is known.
std::string foreign_checkpoint(const io::Input& input);

// Files in the source's folder that look like weights (by `patterns`, of all readers), and are not
// read. Empty: none.
std::string unread_weights(const io::Input& input, const manifest::Manifest& m,
                           const std::vector<std::string>& patterns);

// "3 of 7 weight files of this commit are not downloaded (...)", by `patterns` of the reader, where
// the Hugging Face cache tells; or that none is missing and so the index is of another save. Empty:
// unknown.
std::string missing_downloads(const io::Input& input, const std::vector<std::string>& patterns);

// The links that lead nowhere, as in a copy of a cache without its blobs. Empty: none.
std::string broken_links(const io::Input& input);

// The file beside a file named as SRC that says that the folder's model is quantised:
// "config.json". Empty: none does.
std::string quantisation_beside(const io::Input& input);

// Whether one of them has the name of a file of weights.
bool has_broken_weights(const io::Input& input, const std::vector<std::string>& patterns);

}  // namespace crossdock::convert
