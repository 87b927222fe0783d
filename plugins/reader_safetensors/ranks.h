// SPDX-License-Identifier: Apache-2.0

// What torch's distributed checkpoints write as safetensors: a file for each rank with its boxes of
// tensors, and in its metadata where in the tensors they begin. No file tells a tensor's size: it
// is where its last box ends. Source: torch 2.13, torch/distributed/checkpoint/hf_storage.py.
#pragma once

#include <string>
#include <vector>

#include "plugins/reader_safetensors/header.h"

namespace crossdock::reader_safetensors {

// The ranks' files among a folder's: "shard-00001-model-00001-of-00002.safetensors", sorted.
std::vector<std::string> rank_files(const std::vector<std::string>& names);
// That ranks 1 to the last have each a file. The last there was no file tells.
Result<void> check_ranks(const std::vector<std::string>& files);

// Sets `begin` of the header's tensors, where its metadata have it.
Result<void> find_begins(Header& header);

// Makes one tensor of those that have one name and a `begin`.
Result<void> join_boxes(std::vector<HeaderTensor>& tensors);

}  // namespace crossdock::reader_safetensors
