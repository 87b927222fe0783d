// SPDX-License-Identifier: Apache-2.0

// Reads a stored zip back as any reader would, and checks on the way what torch's own reader relies
// on. Tests only.
#pragma once

#include <crossdock/bytes.hpp>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "plugins/common/crc32.h"

namespace crossdock::torch_write {

struct FoundRecord {
  std::string name, data;
};

template <class T>
T le_at(std::string_view bytes, uint64_t offset) {
  Cursor cursor(as_bytes(bytes));
  cursor.take(offset);
  const T value = cursor.le<T>();
  if (cursor.failed()) throw std::runtime_error("zip: read behind the end");
  return value;
}

// All records in order. Throws when headers contradict each other, a CRC is wrong or data is not
// aligned to 64 bytes.
inline std::vector<FoundRecord> read_zip(std::string_view zip) {
  const auto expect = [](bool holds, const std::string& what) {
    if (!holds) throw std::runtime_error("zip: " + what);
  };
  expect(zip.size() >= 98, "too short");
  const uint64_t end = zip.size() - 22;
  expect(zip.substr(end, 4) == "PK\5\6", "end record");
  expect(zip.substr(end - 20, 4) == "PK\6\7", "zip64 locator");
  const auto end64 = le_at<uint64_t>(zip, end - 20 + 8);
  expect(zip.substr(end64, 4) == "PK\6\6" && end64 + 56 == end - 20, "zip64 end record");
  const auto count = le_at<uint64_t>(zip, end64 + 32);
  expect(le_at<uint64_t>(zip, end64 + 24) == count, "counts");
  expect(le_at<uint16_t>(zip, end + 10) == std::min<uint64_t>(count, 0xffff), "16-bit count");
  uint64_t entry = le_at<uint64_t>(zip, end64 + 48);
  expect(le_at<uint32_t>(zip, end + 16) == entry, "offset of the directory");
  expect(entry + le_at<uint64_t>(zip, end64 + 40) == end64, "size of the directory");

  std::vector<FoundRecord> out;
  for (uint64_t i = 0; i < count; ++i) {
    expect(zip.substr(entry, 4) == "PK\1\2", "directory entry");
    const auto crc = le_at<uint32_t>(zip, entry + 16);
    const uint64_t size = le_at<uint32_t>(zip, entry + 24),
                   local = le_at<uint32_t>(zip, entry + 42);
    const auto name_size = le_at<uint16_t>(zip, entry + 28),
               extra = le_at<uint16_t>(zip, entry + 30);
    const std::string name(zip.substr(entry + 46, name_size));
    expect(zip.substr(local, 4) == "PK\3\4", name + ": local header");
    expect(zip.substr(local + 30, name_size) == name, name + ": local name");
    const uint64_t data = local + 30 + name_size + le_at<uint16_t>(zip, local + 28);
    expect(data % 64 == 0, name + ": alignment");
    expect(common::crc32(as_bytes(zip.substr(data, size))) == crc, name + ": CRC");
    const auto flags = le_at<uint16_t>(zip, local + 6);
    expect(flags == le_at<uint16_t>(zip, entry + 8), name + ": flags");
    if (flags & 8) {
      expect(zip.substr(data + size, 4) == "PK\7\10", name + ": descriptor");
      expect(le_at<uint32_t>(zip, data + size + 4) == crc, name + ": descriptor's CRC");
    }
    out.push_back({name, std::string(zip.substr(data, size))});
    entry += 46 + name_size + extra;
  }
  expect(entry == end64, "end of the directory");
  return out;
}

// The content of one record of a PyTorch file; "none" when there is no such.
inline std::string record_of(std::string_view zip, std::string_view name) {
  for (FoundRecord& record : read_zip(zip)) {
    if (record.name == "archive/" + std::string(name)) return std::move(record.data);
  }
  return "none";
}

}  // namespace crossdock::torch_write
