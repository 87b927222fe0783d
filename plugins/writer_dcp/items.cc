// SPDX-License-Identifier: Apache-2.0
#include "plugins/writer_dcp/items.h"

#include <crossdock/bytes.hpp>

#include <algorithm>

#include "plugins/common/crc32.h"
#include "plugins/writer_dcp/heads.h"

namespace crossdock::writer_dcp {
namespace {

using common::ItemStream;
using common::Overflow;

std::span<const Chunk> chunks_of(const Shard& shard, const Item& item) {
  return std::span(shard.chunks).subspan(item.first_chunk, item.n_chunks);
}

// The parts of the data of an archive that is larger than an item.
void cut_data(const Entry& entry, const Chunk& chunk, size_t index, uint64_t max_bytes,
              std::vector<Item>& out) {
  const auto archive = archive_of(entry, chunk);
  const uint64_t elem_bytes = manifest::info(entry.dtype).bits / 8;
  const uint64_t most = std::max<uint64_t>(max_bytes / elem_bytes, 1);
  const uint64_t data = chunk.offset + archive.storage_offset(0);
  for (uint64_t done = 0; done < chunk.count;) {
    const uint64_t n = std::min(chunk.count - done, most);
    const uint64_t begin = done == 0 ? chunk.offset : data + done * elem_bytes;
    const uint64_t end = data + (done + n) * elem_bytes;
    out.push_back({index, 1, chunk.begin + done, n, true, begin, end - begin});
    done += n;
  }
}

// Gives the CRC.
Result<uint32_t> write_values(const Host& host, ItemStream& stream, const Entry& entry,
                              uint64_t begin, uint64_t count) {
  return entry.head_rows == 0 ? stream.write_crc(entry, begin, count)
                              : write_heads(host, stream, entry, begin, count);
}

Result<void> write_archive(const Host& host, ItemStream& stream, const Entry& entry,
                           const Chunk& chunk) {
  const auto archive = archive_of(entry, chunk);
  XD_TRY(stream.write(as_bytes(archive.head())));
  XD_TRY_SET(const uint32_t crc, write_values(host, stream, entry, chunk.begin, chunk.count));
  return stream.write(as_bytes(archive.tail({&crc, 1})));
}

}  // namespace

std::vector<Item> cut(const Layout& layout, const Shard& shard, uint64_t max_bytes) {
  std::vector<Item> out;
  for (size_t i = 0; i < shard.chunks.size(); ++i) {
    const Chunk& chunk = shard.chunks[i];
    const Entry& entry = layout.entries[chunk.entry];
    if (data_bytes(entry, chunk) > max_bytes) {
      cut_data(entry, chunk, i, max_bytes, out);
      continue;
    }
    const bool fits = !out.empty() && !out.back().is_part &&
                      chunk.n_bytes <= max_bytes - std::min(out.back().n_bytes, max_bytes);
    if (!fits) out.push_back({i, 0, 0, 0, false, chunk.offset, 0});
    ++out.back().n_chunks;
    out.back().n_bytes += chunk.n_bytes;
  }
  return out;
}

common::ItemMemory memory_of(const Layout& layout, const Shard& shard, const Item& item) {
  const auto any = [&](bool Entry::*is) {
    return std::ranges::any_of(chunks_of(shard, item),
                               [&](const Chunk& c) { return layout.entries[c.entry].*is; });
  };
  return common::item_memory(item.n_bytes, any(&Entry::is_cast), any(&Entry::may_overflow));
}

Result<void> plan_items(Plan& plan, uint32_t object, const Layout& layout, const Shard& shard,
                        uint64_t max_bytes) {
  for (const Item& item : cut(layout, shard, max_bytes)) {
    std::vector<xd_range> needs;
    uint64_t of_heads = 0;
    for (const Chunk& chunk : chunks_of(shard, item)) {
      const Entry& entry = layout.entries[chunk.entry];
      const uint64_t begin = item.is_part ? item.begin : chunk.begin;
      const uint64_t count = item.is_part ? item.count : chunk.count;
      const xd_range range = source_range(entry, begin, count);
      needs.push_back(range);
      if (entry.may_overflow) needs.push_back(dense_range(entry.tensor, range.begin, range.count));
      of_heads = std::max(of_heads, head_bytes(entry));
    }
    XD_TRY(plan.item(object, needs, item.n_bytes, memory_of(layout, shard, item).sum() + of_heads));
  }
  return {};
}

std::string ItemResult::encode() const {
  std::string out;
  put_le(out, overflow.n_values);
  put_le(out, overflow.first);
  put_le(out, crc);
  put_le(out, n_bytes);
  return out;
}

Result<ItemResult> ItemResult::decode(std::string_view bytes) {
  ItemResult out;
  Cursor in(as_bytes(bytes));
  out.overflow.n_values = in.le<uint64_t>();
  out.overflow.first = in.le<uint64_t>();
  out.crc = in.le<uint32_t>();
  out.n_bytes = in.le<uint64_t>();
  if (!in.failed() && in.done()) return out;
  return Error{XD_INTERNAL,
               cat("expected an item's result, found ", bytes.size(), " bytes that are none")};
}

Result<ItemResult> write_item(const Host& host, const manifest::Manifest& model,
                              const Layout& layout, const Shard& shard, const Item& item,
                              Object& out) {
  XD_TRY_SET(auto stream,
             ItemStream::make(host, model, out, item.offset, memory_of(layout, shard, item)));
  ItemResult result;
  for (const Chunk& chunk : chunks_of(shard, item)) {
    const Entry& entry = layout.entries[chunk.entry];
    if (!item.is_part) {
      XD_TRY(write_archive(host, stream, entry, chunk));
      continue;
    }
    if (item.begin == chunk.begin) XD_TRY(stream.write(as_bytes(archive_of(entry, chunk).head())));
    XD_TRY_SET(result.crc, write_values(host, stream, entry, item.begin, item.count));
    result.n_bytes = item.count * (manifest::info(entry.dtype).bits / 8);
  }
  XD_TRY(stream.flush());
  result.overflow = stream.overflow();
  return result;
}

Result<Overflow> seal(const Layout& layout, const Shard& shard, Object& out,
                      std::span<const std::string_view> results, uint64_t max_bytes) {
  const std::vector<Item> items = cut(layout, shard, max_bytes);
  if (results.size() != items.size())
    return Error{XD_INTERNAL,
                 cat("expected the results of ", items.size(), " items, found ", results.size())};
  Overflow overflow;
  uint32_t crc = 0;  // of the parts so far
  for (size_t i = 0; i < items.size(); ++i) {
    XD_TRY_SET(const ItemResult result, ItemResult::decode(results[i]));
    if (result.overflow.n_values > 0) overflow.add(result.overflow);
    if (!items[i].is_part) continue;
    const Chunk& chunk = shard.chunks[items[i].first_chunk];
    const bool is_first = items[i].begin == chunk.begin;
    crc = is_first ? result.crc : common::crc32_join(crc, result.crc, result.n_bytes);
    if (items[i].begin + items[i].count != chunk.begin + chunk.count) continue;
    const auto archive = archive_of(layout.entries[chunk.entry], chunk);
    XD_TRY(out.write(chunk.offset + archive.tail_offset(), as_bytes(archive.tail({&crc, 1}))));
  }
  return overflow;
}

}  // namespace crossdock::writer_dcp
