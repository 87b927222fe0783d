// SPDX-License-Identifier: Apache-2.0

// Which tensor lies where: the files of a folder, their headers, and the index. Pure functions of
// the model and the settings; any thread. FORMAT.md says what the readers of such files want.
#pragma once

#include <crossdock/manifest_wire.hpp>
#include <crossdock/plugin.hpp>

#include <string>
#include <vector>

#include "plugins/writer_safetensors/settings.h"

namespace crossdock::writer_safetensors {

struct Written : common::CastTensor {
  uint64_t offset = 0;  // of its first byte, in the file's data
};

struct File {
  std::string name;
  std::vector<Written> tensors;  // in the order of their bytes
  uint64_t data_bytes = 0;
  uint64_t head_bytes = 0;  // of what stands before the data
};

// The files, in the order of their numbers. Refuses what the format does not have.
Result<std::vector<File>> make_files(const manifest::Manifest& model, const Settings& settings);

// What stands before the data: the header's length and the header, a multiple of 8 bytes, so that
// every tensor is aligned in the file.
std::string head(const File& file, const manifest::Manifest& model);

inline constexpr std::string_view kSingleFile = "model.safetensors",
                                  kIndex = "model.safetensors.index.json";
// Of more than one file.
std::string index_text(const std::vector<File>& files, const manifest::Manifest& model);

}  // namespace crossdock::writer_safetensors
