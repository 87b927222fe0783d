// SPDX-License-Identifier: Apache-2.0
#include "core/transform/dequantise.h"

#include "core/transform/cast.h"
#include "core/transform/loops.h"

#include <algorithm>
#include <cstring>

namespace crossdock::transform {

namespace {

using manifest::DType;

// Values on their way, which stay in the nearest cache: codes, zeros, scales and the result.
constexpr uint64_t kPiece = 1024;
// Elements between two ranges that cost less to read than another call.
constexpr uint64_t kNearBytes = 16 << 10;
constexpr uint64_t kAheadBytes = 64 << 10;

enum Operand : size_t { kCodes, kZeros, kScales, kGroups };

uint64_t elem_bytes(const Node& node) { return manifest::info(node.dtype).bits / 8; }

class Dequantise {
 public:
  Dequantise(std::span<const Node> nodes, const Node& node, ReadAhead& ahead, const ReadChild& read)
      : nodes_(nodes),
        node_(std::get<Node::Dequantised>(node.what)),
        dtype_(node.dtype),
        out_bytes_(elem_bytes(node)),
        ahead_(ahead),
        read_(read) {
    // No value, and no group, takes more than a float.
    for (size_t i = kZeros; i <= kGroups; ++i) {
      if (const uint64_t room = ahead.windows[i].room.size() / sizeof(float); room > 0)
        piece_ = std::min(piece_, room);
    }
  }

  Result<void> run(const Runs& runs, std::span<std::byte> out) {
    const uint64_t n_bytes = out.size() / runs.count, n = n_bytes / out_bytes_;
    const uint64_t column = runs.begin % node_.columns, rows = runs.stride / node_.columns;
    const bool is_column = runs.stride == rows * node_.columns;
    if (!is_column || n > std::min(piece_, node_.columns - column)) {
      for (uint64_t i = 0; i < runs.count; ++i)
        XD_TRY(run(runs.begin + i * runs.stride, out.subspan(i * n_bytes, n_bytes)));
      return {};
    }
    // As of a transposed tensor: the same columns of rows.
    set_columns(column, n);
    row_ = runs.begin / node_.columns;
    for (uint64_t i = 0; i < runs.count; ++i, row_ += rows) XD_TRY(piece(out.data() + i * n_bytes));
    return {};
  }

 private:
  Result<void> run(uint64_t begin, std::span<std::byte> out) {
    uint64_t left = out.size() / out_bytes_, column = begin % node_.columns;
    row_ = (begin + left - 1) / node_.columns;  // the last one
    set_columns((begin + left - 1) % node_.columns, 1);
    codes_wanted_ = row_ * node_.row_codes + columns_.end_code;
    scales_wanted_ = scale_row() + columns_.end_scale;
    row_ = begin / node_.columns;
    for (; left > 0; ++row_, column = 0) {
      while (left > 0 && column < node_.columns) {
        const uint64_t n = std::min({left, piece_, node_.columns - column});
        set_columns(column, n);
        XD_TRY(piece(out.data()));
        out = out.subspan(n * out_bytes_);
        column += n;
        left -= n;
      }
    }
    return {};
  }

  // What the columns take of a row of each operand.
  void set_columns(uint64_t begin, uint64_t n) {
    const uint64_t bits = node_.decoder->bits(), elem_bits = 8 * elem_bytes(nodes_[node_.codes]);
    const uint64_t first_bit = begin / 8 * 8 * bits;  // of eight codes that the first is among
    // Whole eights, as far as the row goes: a code may lie behind those that follow it.
    const uint64_t end_bit = (begin + n + 7) / 8 * 8 * bits;
    const uint64_t end = std::min((end_bit + elem_bits - 1) / elem_bits, node_.row_codes);
    columns_ = {begin, n, first_bit / elem_bits, end};
    columns_.skipped = first_bit / 8 - columns_.first_code * elem_bits / 8;
    columns_.end_scale = node_.scale_columns;
    if (node_.groups) return;
    columns_.block = node_.block_columns;
    columns_.first_scale = begin / columns_.block;
    columns_.end_scale = (begin + n - 1) / columns_.block + 1;
    columns_.left = columns_.block - begin % columns_.block;
  }

  // The elements [begin, end) of an operand, of which all before `wanted` will be asked for.
  Result<const std::byte*> get(Operand operand, uint32_t child, uint64_t begin, uint64_t end,
                               uint64_t wanted) {
    auto& window = ahead_.windows[operand];
    const uint64_t size = elem_bytes(nodes_[child]);
    if (begin < window.begin || end > window.begin + window.count) {
      const uint64_t slack = operand == kCodes ? Decoder::kSlack : 0;
      const uint64_t room = (window.room.size() - std::min(window.room.size(), slack)) / size;
      if (end - begin > room)
        return Error{XD_NO_MEMORY, "expected room to dequantise a tensor: raise --memory"};
      // Ranges that follow each other closely are read as one.
      const bool is_near = begin >= window.asked && (begin - window.asked) * size <= kNearBytes;
      if (is_near) wanted = std::max(wanted, begin + kAheadBytes / size);
      const uint64_t whole = *checked_product(nodes_[child].shape);
      window.begin = begin;
      window.count = 0;
      const uint64_t n = std::min(std::min(std::max(end, wanted), whole) - begin, room);
      XD_TRY(read_(child, begin, window.room.first(n * size)));
      window.count = n;
    }
    window.asked = end;
    return window.room.data() + (begin - window.begin) * size;
  }

  // The columns of the row at hand.
  Result<void> piece(std::byte* out) {
    const uint64_t n = columns_.n;
    alignas(64) float room[kPiece], by[kPiece];
    const bool in_place =
        dtype_ == DType::F32 && reinterpret_cast<uintptr_t>(out) % alignof(float) == 0;
    float* const values = in_place ? reinterpret_cast<float*>(out) : room;
    XD_TRY_SET(const std::byte* codes,
               get(kCodes, node_.codes, row_ * node_.row_codes + columns_.first_code,
                   row_ * node_.row_codes + columns_.end_code, codes_wanted_));
    node_.decoder->decode(codes + columns_.skipped, columns_.begin % 8, n, values);
    if (node_.zeros) {
      XD_TRY_SET(const Blocks zeros, spread(kZeros, *node_.zeros, by));
      subtract(values, zeros, n);
    }
    if (node_.scales) {
      XD_TRY_SET(const Blocks scales, spread(kScales, *node_.scales, by));
      node_.divides ? divide(values, scales, n) : multiply(values, scales, n);
    }
    if (node_.factor != 1) multiply(values, {&node_.factor, n, n}, n);
    if (node_.product != dtype_) round(node_.product, values, n);
    if (!in_place)
      find_cast(DType::F32, dtype_)(reinterpret_cast<const std::byte*>(values), out, n);
    return {};
  }

  // The first scale, or zero, of the row at hand.
  uint64_t scale_row() const {
    if (node_.block_rows == 1) return row_ * node_.scale_columns;
    const uint64_t matrix = row_ / node_.rows, row = row_ % node_.rows / node_.block_rows;
    return (matrix * node_.scale_rows + row) * node_.scale_columns;
  }

  // The scales, or zeros, of the columns; in `room` for one for each.
  Result<Blocks> spread(Operand operand, uint32_t child, float* room) {
    const uint64_t row = scale_row();
    const Node& scales = nodes_[child];
    XD_TRY_SET(const std::byte* at, get(operand, child, row + columns_.first_scale,
                                        row + columns_.end_scale, scales_wanted_));
    uint64_t count = columns_.end_scale - columns_.first_scale;
    std::byte picked[4 * kPiece];
    if (node_.groups) {
      XD_TRY(pick_groups(at, elem_bytes(scales), picked));
      at = picked;
      count = columns_.n;
    }
    find_cast(scales.dtype, DType::F32)(at, reinterpret_cast<std::byte*>(room), count);
    if (operand == kScales) round(node_.scale, room, count);
    return Blocks{room, columns_.left, columns_.block};
  }

  // Of each column the scale of its group.
  Result<void> pick_groups(const std::byte* scales, uint64_t size, std::byte* out) {
    const uint64_t begin = columns_.begin, n = columns_.n;
    XD_TRY_SET(const std::byte* at, get(kGroups, *node_.groups, begin, begin + n, node_.columns));
    if (const auto wrong = pick(at, scales, size, node_.scale_columns, out, n))
      return corrupt(cat("expected groups below ", node_.scale_columns, ", found ", *wrong));
    return {};
  }

  static void round(DType to, float* values, uint64_t n) {
    if (to == DType::BF16) round_to_bf16(values, n);
    if (to != DType::F16) return;
    std::byte rounded[2 * kPiece];
    auto* raw = reinterpret_cast<std::byte*>(values);
    find_cast(DType::F32, to)(raw, rounded, n);
    find_cast(to, DType::F32)(rounded, raw, n);
  }

  // Of the piece at hand: columns [begin, begin + n) of a row.
  struct Columns {
    uint64_t begin = 0, n = 0;
    uint64_t first_code = 0, end_code = 0;    // elements of a row of codes
    uint64_t skipped = 0;                     // bytes of the first of them
    uint64_t first_scale = 0, end_scale = 0;  // of a row of scales, or zeros
    uint64_t left = 1, block = 1;             // columns of the first scale, and of each
  };

  const std::span<const Node> nodes_;
  const Node::Dequantised& node_;
  const DType dtype_;
  const uint64_t out_bytes_;
  ReadAhead& ahead_;
  const ReadChild& read_;
  uint64_t piece_ = kPiece;  // elements at once
  Columns columns_;
  uint64_t row_ = 0;
  uint64_t codes_wanted_ = 0, scales_wanted_ = 0;  // all before will be asked for
};

}  // namespace

ReadAhead::ReadAhead(const Node::Dequantised& node, std::span<std::byte> scratch) {
  const bool has[] = {true, node.zeros.has_value(), node.scales.has_value(),
                      node.groups.has_value()};
  const auto n_others = static_cast<size_t>(std::count(std::begin(has) + 1, std::end(has), true));
  const size_t half = n_others == 0 ? scratch.size() : scratch.size() / 2 / 64 * 64;
  windows[0].room = scratch.first(half);
  const size_t share = n_others == 0 ? 0 : (scratch.size() - half) / n_others / 64 * 64;
  size_t at = half;
  for (size_t i = 1; i < windows.size(); ++i) {
    if (!has[i]) continue;
    windows[i].room = scratch.subspan(at, share);
    at += share;
  }
}

Result<void> dequantise(std::span<const Node> nodes, const Node& node, const Runs& runs,
                        std::span<std::byte> out, ReadAhead& ahead, const ReadChild& read) {
  if (out.empty()) return {};
  return Dequantise(nodes, node, ahead, read).run(runs, out);
}

}  // namespace crossdock::transform
