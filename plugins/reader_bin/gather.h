// Reads the elements of a strided view in row-major order.
#pragma once

#include <crossdock/plugin.hpp>

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace crossdock::reader_bin {

struct View {
  std::span<const uint64_t> shape;
  std::span<const uint64_t> strides;  // in elements
  uint64_t offset = 0;                // of the first element
  uint64_t elem_bytes = 0;
};

// Reads bytes [offset, offset + out.size()) of the storage.
using ReadBytes = std::function<Result<void>(uint64_t offset, std::span<std::byte> out)>;

// Row-major and without gaps, so that its elements are one range of the storage.
bool is_dense(const View& view);

// Elements [begin, begin + count) of the view, into out. Reads the storage in blocks of at most
// `block` bytes, which it borrows; an element fits in it.
Result<void> gather(const View& view, uint64_t begin, uint64_t count, std::span<std::byte> block,
                    const ReadBytes& read, std::span<std::byte> out);

}  // namespace crossdock::reader_bin
