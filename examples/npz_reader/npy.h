// SPDX-License-Identifier: Apache-2.0

// The header of a .npy file: a Python dict that tells the type, the order and the shape of the
// values behind it.
//
// Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
#pragma once

#include <crossdock/plugin.hpp>

#include <vector>

namespace npz {

using namespace crossdock;

inline constexpr uint64_t kNpyPrefixBytes = 12;  // as many as version 2.0's magic and length
inline constexpr uint64_t kMaxNpyHeader = 64 << 10;

struct NpyHeader {
  manifest::DType dtype;
  bool is_big_endian;
  bool is_fortran;  // the first dimension is the innermost
  std::vector<uint64_t> shape;
};

// How long the header is, the magic included, by a file's first bytes.
Result<uint64_t> npy_header_bytes(std::span<const std::byte> prefix);
// `header`: as many bytes.
Result<NpyHeader> parse_npy_header(std::span<const std::byte> header);

}  // namespace npz
