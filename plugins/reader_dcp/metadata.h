// SPDX-License-Identifier: Apache-2.0

// What .metadata says: which part of which tensor lies where. Only of the classes that torch writes
// into it; FORMAT.md has them. Nothing is run.
#pragma once

#include <crossdock/dtype.hpp>
#include <crossdock/result.hpp>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace crossdock::reader_dcp {

inline constexpr std::string_view kMetadataFile = ".metadata";
inline constexpr uint64_t kMaxMetadataBytes = 1 << 30;
inline constexpr size_t kMaxNameBytes = 256 << 20;  // of all names; one text may be a million keys

// Bytes of a file, which are an archive of torch.save by themselves.
struct Place {
  uint32_t file = 0;  // in Metadata::files
  uint64_t offset = 0, n_bytes = 0;
};

// A box of a tensor.
struct Chunk {
  std::vector<uint64_t> offsets, sizes;
  Place place;

  bool is_empty() const;
};

struct Entry {
  std::string name;
  // The keys of the nested state dict that it was saved in; the name alone when nothing tells them.
  std::vector<std::string> path;
};
struct TensorEntry : Entry {
  manifest::DType dtype = manifest::DType::UNSPECIFIED;
  std::vector<uint64_t> shape;
  std::vector<Chunk> chunks;
};
// A Python object, pickled.
struct ObjectEntry : Entry {
  Place place;
};

struct Metadata {
  std::vector<std::string> files;    // relative to that of .metadata, sorted
  std::vector<TensorEntry> tensors;  // in the file's order
  std::vector<ObjectEntry> objects;
};

Result<Metadata> parse_metadata(std::string_view bytes);

}  // namespace crossdock::reader_dcp
