// SPDX-License-Identifier: Apache-2.0
#include "core/convert/record.h"

#include <crossdock/bytes.hpp>

namespace crossdock::convert {

namespace {

void put_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  out += static_cast<char>(value);
}

void put_text(std::string& out, std::string_view text) {
  put_varint(out, text.size());
  out += text;
}

void put_nodes(std::string& out, const std::vector<io::TreeNode>& nodes) {
  put_varint(out, nodes.size());
  for (const io::TreeNode& node : nodes) {
    put_varint(out, node.first);
    put_varint(out, node.level);
    put_le(out, node.hash.high);
    put_le(out, node.hash.low);
  }
}

void put_seen(std::string& out, const std::vector<Seen>& list) {
  put_varint(out, list.size());
  for (const Seen& seen : list) {
    put_varint(out, seen.index);
    put_nodes(out, seen.nodes);
    put_varint(out, seen.parts.size());
    for (const auto& part : seen.parts) {
      put_varint(out, part.offset);
      put_text(out, part.bytes);
    }
  }
}

std::string take_text(Cursor& cursor) { return std::string(as_text(cursor.take(cursor.varint()))); }

// Calls `each` as often as the count that comes next says, or until the bytes end.
template <class Each>
void take_list(Cursor& cursor, Each each) {
  const uint64_t n = cursor.varint();
  for (uint64_t i = 0; i < n && !cursor.failed(); ++i) each();
}

std::vector<io::TreeNode> take_nodes(Cursor& cursor) {
  std::vector<io::TreeNode> out;
  take_list(cursor, [&] {
    io::TreeNode node;
    node.first = cursor.varint();
    node.level = static_cast<unsigned>(cursor.varint());
    node.hash.high = cursor.le<uint64_t>();
    node.hash.low = cursor.le<uint64_t>();
    if (!cursor.failed()) out.push_back(node);
  });
  return out;
}

Seen take_seen(Cursor& cursor) {
  Seen out;
  out.index = cursor.varint();
  out.nodes = take_nodes(cursor);
  take_list(cursor, [&] {
    const uint64_t offset = cursor.varint();
    out.parts.push_back({offset, take_text(cursor)});
  });
  return out;
}

}  // namespace

std::string encode(const Record& record) {
  std::string out;
  put_varint(out, record.file);
  put_varint(out, record.item ? uint64_t{*record.item} + 1 : 0);
  put_text(out, record.digest);
  put_varint(out, record.size);
  put_text(out, record.result);
  put_varint(out, record.bytes.size());
  for (const io::ByteRange& range : record.bytes) {
    put_varint(out, range.begin);
    put_varint(out, range.end);
  }
  put_nodes(out, record.nodes);
  put_seen(out, record.tensors);
  put_seen(out, record.rests);
  put_varint(out, record.notes.size());
  for (const std::string& note : record.notes) put_text(out, note);
  return out;
}

Result<Record> decode_record(std::string_view bytes) {
  Cursor cursor(as_bytes(bytes));
  Record out;
  out.file = cursor.varint();
  const uint64_t item = cursor.varint();
  if (item > UINT32_MAX) cursor.fail();
  if (item != 0) out.item = static_cast<uint32_t>(item - 1);
  out.digest = take_text(cursor);
  out.size = cursor.varint();
  out.result = take_text(cursor);
  take_list(cursor, [&] {
    const uint64_t begin = cursor.varint();
    out.bytes.push_back({begin, cursor.varint()});
  });
  out.nodes = take_nodes(cursor);
  take_list(cursor, [&] { out.tensors.push_back(take_seen(cursor)); });
  take_list(cursor, [&] { out.rests.push_back(take_seen(cursor)); });
  take_list(cursor, [&] { out.notes.push_back(take_text(cursor)); });
  if (cursor.failed() || cursor.left() != 0) return corrupt("expected a journal's record");
  return out;
}

}  // namespace crossdock::convert
