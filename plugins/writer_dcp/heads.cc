// SPDX-License-Identifier: Apache-2.0
#include "plugins/writer_dcp/heads.h"

#include <algorithm>

#include "plugins/common/crc32.h"

namespace crossdock::writer_dcp {
namespace {

uint64_t elem_bytes(const Entry& entry) { return manifest::info(entry.dtype).bits / 8; }
uint64_t row_elems(const Entry& entry) { return entry.n_elems / entry.shape[0]; }
uint64_t head_elems(const Entry& entry) { return entry.head_rows * row_elems(entry); }

}  // namespace

xd_range source_range(const Entry& entry, uint64_t begin, uint64_t count) {
  if (entry.head_rows == 0 || count == 0) return common::range_of(entry, begin, count);
  const uint64_t head = head_elems(entry);
  const uint64_t first = begin / head * head, last = round_up(begin + count, head);
  return common::range_of(entry, first, last - first);
}

uint64_t head_bytes(const Entry& entry) {
  return entry.head_rows == 0 ? 0 : head_elems(entry) * elem_bytes(entry);
}

Result<uint32_t> write_heads(const Host& host, common::ItemStream& stream, const Entry& entry,
                             uint64_t begin, uint64_t count) {
  uint32_t crc = 0;
  if (count == 0) return crc;
  const uint64_t row = row_elems(entry), head = head_elems(entry), size = elem_bytes(entry);
  XD_TRY_SET(const Buffer buffer, Buffer::make(host, head * size));
  for (uint64_t at = begin, end = begin + count; at < end;) {
    if (host.cancelled()) return Error{XD_CANCELLED, "cancelled"};
    const uint64_t first = at / head * head;
    XD_TRY(read_tensor(host, common::range_of(entry, first, head), buffer.span()));
    for (const uint64_t head_end = std::min(first + head, end); at < head_end;) {
      const uint64_t r = (at - first) / row, column = at % row;
      const uint64_t from = (r % 2 * (entry.head_rows / 2) + r / 2) * row + column;
      const uint64_t n = std::min(row - column, head_end - at);
      const auto bytes = buffer.span().subspan(from * size, n * size);
      XD_TRY(stream.count_infinite(entry, first + from, bytes));
      crc = common::crc32(bytes, crc);
      XD_TRY(stream.write(bytes));
      at += n;
    }
  }
  return crc;
}

}  // namespace crossdock::writer_dcp
