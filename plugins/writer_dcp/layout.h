// SPDX-License-Identifier: Apache-2.0

// Which part of which tensor lies where: the shards of a folder, and the archives in them. Pure
// functions of the model and the settings; any thread. FORMAT.md says what torch wants.
#pragma once

#include <crossdock/manifest_wire.hpp>

#include <string>
#include <vector>

#include "plugins/torch/write/file_layout.h"
#include "plugins/writer_dcp/settings.h"

namespace crossdock::writer_dcp {

// A tensor as it is written, and what the state dict calls it.
struct Entry : common::CastTensor {
  std::vector<uint64_t> shape;
  // Its own name first, then those that are tied to it, which refer to the same bytes.
  std::vector<std::string> names;
  uint64_t head_rows = 0;  // as TitanTensor has them
};

// The rows of an entry that one shard has. A scalar is one row.
struct Chunk {
  size_t entry = 0;
  uint64_t first_row = 0, n_rows = 0;
  uint64_t begin = 0, count = 0;     // in elements
  uint64_t offset = 0, n_bytes = 0;  // the archive, in its file
};

struct Shard {
  std::string file;  // its name, without a folder
  std::vector<Chunk> chunks;
  uint64_t n_bytes = 0;
};

struct Layout {
  std::vector<Entry> entries;
  std::vector<Shard> shards;
};

Result<Layout> make_layout(const manifest::Manifest& model, const Settings& settings);

std::vector<uint64_t> offsets_of(const Entry& entry, const Chunk& chunk);
std::vector<uint64_t> sizes_of(const Entry& entry, const Chunk& chunk);
uint64_t data_bytes(const Entry& entry, const Chunk& chunk);
// The archive: a whole file of torch.save with one tensor.
torch_write::FileLayout archive_of(const Entry& entry, const Chunk& chunk);

}  // namespace crossdock::writer_dcp
