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
        ahead_(ahead),
        read_(read) {}

  Result<void> run(uint64_t begin, std::span<std::byte> out) {
    const uint64_t out_bytes = manifest::info(dtype_).bits / 8;
    uint64_t left = out.size() / out_bytes;
    last_row_ = (begin + left - 1) / node_.columns;
    while (left > 0) {
      row_ = begin / node_.columns;
      column_ = begin % node_.columns;
      const uint64_t n = std::min({left, kPiece, node_.columns - column_});
      XD_TRY(piece(n, out.data()));
      out = out.subspan(n * out_bytes);
      begin += n;
      left -= n;
    }
    return {};
  }

 private:
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

  Result<void> piece(uint64_t n, std::byte* out) {
    alignas(64) float values[kPiece], by[kPiece];
    XD_TRY(codes(n, values));
    if (node_.zeros) {
      XD_TRY_SET(const Blocks zeros, spread(kZeros, *node_.zeros, n, by));
      subtract(values, zeros, n);
    }
    if (node_.scales) {
      XD_TRY_SET(const Blocks scales, spread(kScales, *node_.scales, n, by));
      node_.divides ? divide(values, scales, n) : multiply(values, scales, n);
    }
    if (node_.factor != 1) multiply(values, {&node_.factor, n, n}, n);
    if (node_.product != dtype_) round(node_.product, values, n);
    find_cast(DType::F32, dtype_)(reinterpret_cast<const std::byte*>(values), out, n);
    return {};
  }

  // Decodes from the first of the eight codes on that the first wanted one is among.
  Result<void> codes(uint64_t n, float* out) {
    const uint64_t bits = node_.decoder->bits(), elem_bits = 8 * elem_bytes(nodes_[node_.codes]);
    const uint64_t first_bit = column_ / 8 * 8 * bits;
    const uint64_t first = first_bit / elem_bits;
    const uint64_t end = ((column_ + n) * bits + elem_bits - 1) / elem_bits;
    XD_TRY_SET(const std::byte* at,
               get(kCodes, node_.codes, row_ * node_.row_codes + first,
                   row_ * node_.row_codes + end, (last_row_ + 1) * node_.row_codes));
    node_.decoder->decode(at + (first_bit - first * elem_bits) / 8, column_ % 8, n, out);
    return {};
  }

  uint64_t scale_row(uint64_t row) const {
    return row / node_.rows * node_.scale_rows + row % node_.rows / node_.block_rows;
  }

  // The scales, or zeros, of n codes; in `room` for so many.
  Result<Blocks> spread(Operand operand, uint32_t child, uint64_t n, float* room) {
    const uint64_t row = scale_row(row_) * node_.scale_columns;
    const uint64_t wanted = (scale_row(last_row_) + 1) * node_.scale_columns;
    const Node& scales = nodes_[child];
    const uint64_t block = node_.groups ? 1 : node_.block_columns;
    const uint64_t first = node_.groups ? 0 : column_ / block;
    const uint64_t end = node_.groups ? node_.scale_columns : (column_ + n - 1) / block + 1;
    XD_TRY_SET(const std::byte* at, get(operand, child, row + first, row + end, wanted));
    const uint64_t count = node_.groups ? n : end - first;
    std::byte picked[4 * kPiece];
    if (node_.groups) {
      XD_TRY(pick_groups(at, elem_bytes(scales), n, picked));
      at = picked;
    }
    find_cast(scales.dtype, DType::F32)(at, reinterpret_cast<std::byte*>(room), count);
    if (operand == kScales) round(node_.scale, room, count);
    return Blocks{room, block - column_ % block, block};
  }

  static void round(DType to, float* values, uint64_t n) {
    if (to == DType::BF16) round_to_bf16(values, n);
    if (to != DType::F16) return;
    std::byte rounded[2 * kPiece];
    auto* raw = reinterpret_cast<std::byte*>(values);
    find_cast(DType::F32, to)(raw, rounded, n);
    find_cast(to, DType::F32)(rounded, raw, n);
  }

  // Of each column the scale of its group.
  Result<void> pick_groups(const std::byte* scales, uint64_t size, uint64_t n, std::byte* out) {
    XD_TRY_SET(const std::byte* at,
               get(kGroups, *node_.groups, column_, column_ + n, node_.columns));
    if (const auto wrong = pick(at, scales, size, node_.scale_columns, out, n))
      return corrupt(cat("expected groups below ", node_.scale_columns, ", found ", *wrong));
    return {};
  }

  const std::span<const Node> nodes_;
  const Node::Dequantised& node_;
  const DType dtype_;
  ReadAhead& ahead_;
  const ReadChild& read_;
  uint64_t row_ = 0, column_ = 0;  // of the piece at hand
  uint64_t last_row_ = 0;          // of all that is asked for
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

Result<void> dequantise(std::span<const Node> nodes, const Node& node, uint64_t begin,
                        std::span<std::byte> out, ReadAhead& ahead, const ReadChild& read) {
  if (out.empty()) return {};
  return Dequantise(nodes, node, ahead, read).run(begin, out);
}

}  // namespace crossdock::transform
