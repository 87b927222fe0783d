// SPDX-License-Identifier: Apache-2.0

// The layout is that of caffe2/serialize/inline_container.cc over miniz, as found in the files it
// writes:
//
//   each record   local header (CRC and sizes 0, flags: data descriptor, UTF-8), name, [zip64
//   extra], "FB" extra whose Z's
//                 push the data to the next multiple of 64, data, data descriptor (an empty record
//                 has none)
//   the end       central directory, zip64 end record and locator (always), end record
//
// A record is zip64 when its size or the offset of its header needs more than 32 bits, and only
// then: its extra field holds just those of the two, its descriptor 8-byte sizes. Every other
// writer's freedom is left out. The fields are those of APPNOTE.TXT 6.3, sections 4.3 and 4.5.
#include "plugins/torch/write/file_layout.h"

#include <crossdock/bytes.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "plugins/common/crc32.h"

namespace crossdock::torch_write {

using common::crc32;

namespace {

constexpr uint64_t kAlignment = 64;  // also told in .storage_alignment
constexpr uint64_t kLocalHeaderSize = 30, kCentralHeaderSize = 46;
constexpr uint64_t kEndSize = 56 + 20 + 22;  // zip64 end record, its locator, end record
constexpr uint64_t kMax16 = 0xffff, kMax32 = 0xffffffff;
constexpr uint16_t kDescriptorFlag = 1 << 3, kUtf8Flag = 1 << 11;

uint32_t max32(uint64_t n) { return static_cast<uint32_t>(std::min(n, kMax32)); }
uint16_t max16(uint64_t n) { return static_cast<uint16_t>(std::min(n, kMax16)); }

// The zip64 extra field: of size, compressed size and offset those that do not fit their 32-bit
// place.
std::string zip64_extra(uint64_t size, uint64_t stored_size, uint64_t offset) {
  std::string body;
  if (size >= kMax32) {
    put_le(body, size);
    put_le(body, stored_size);
  }
  if (offset >= kMax32) put_le(body, offset);
  if (body.empty()) return {};
  std::string out;
  put_le<uint16_t>(out, 1);
  put_le(out, static_cast<uint16_t>(body.size()));
  return out + body;
}

// What stands between the versions and the CRC in both kinds of header: flags, method 0 (stored),
// time, date.
void put_flags(std::string& out, uint64_t size) {
  put_le<uint16_t>(out, size > 0 ? kDescriptorFlag | kUtf8Flag : kUtf8Flag);
  out.append(6, '\0');
}

}  // namespace

bool ZipLayout::is_zip64(const Entry& entry) {
  return entry.size >= kMax32 || entry.header >= kMax32;
}

uint64_t ZipLayout::descriptor_size(const Entry& entry) {
  if (entry.size == 0) return 0;
  return is_zip64(entry) ? 24 : 16;
}

ZipLayout::ZipLayout(std::string_view root, std::vector<Record> records) {
  entries_.reserve(records.size());
  uint64_t at = 0;
  for (Record& record : records) {
    Entry entry{std::string(root) + "/" + record.name, record.size, at, 0};
    const uint64_t extra = zip64_extra(entry.size, entry.size, entry.header).size();
    const uint64_t padding = 4;  // the FB field's own head
    entry.data = round_up(at + kLocalHeaderSize + entry.name.size() + extra + padding, kAlignment);
    at = entry.data + entry.size + descriptor_size(entry);
    central_size_ += kCentralHeaderSize + entry.name.size() + extra;
    entries_.push_back(std::move(entry));
  }
  central_ = at;
  size_ = central_ + central_size_ + kEndSize;
}

std::string ZipLayout::local_header(const Entry& entry) {
  const std::string extra =
      zip64_extra(entry.size, 0, entry.header);  // torch does not know the stored size yet
  const uint64_t padding =
      entry.data - entry.header - kLocalHeaderSize - entry.name.size() - extra.size();
  std::string out = "PK\3\4";
  put_le<uint16_t>(out, 0);  // version needed
  put_flags(out, entry.size);
  out.append(12, '\0');  // CRC and sizes: see the descriptor
  put_le(out, static_cast<uint16_t>(entry.name.size()));
  put_le(out, static_cast<uint16_t>(extra.size() + padding));
  out += entry.name + extra + "FB";
  put_le(out, static_cast<uint16_t>(padding - 4));
  return out.append(padding - 4, 'Z');
}

std::string ZipLayout::descriptor(const Entry& entry, uint32_t crc) {
  if (entry.size == 0) return {};
  std::string out = "PK\7\10";
  put_le(out, crc);
  for (int i = 0; i < 2; ++i) {  // stored size and size
    if (is_zip64(entry)) {
      put_le(out, entry.size);
    } else {
      put_le(out, static_cast<uint32_t>(entry.size));
    }
  }
  return out;
}

std::string ZipLayout::central_header(const Entry& entry, uint32_t crc) {
  const std::string extra = zip64_extra(entry.size, entry.size, entry.header);
  std::string out = "PK\1\2";
  put_le<uint32_t>(out, 0);  // versions made by and needed
  put_flags(out, entry.size);
  put_le(out, crc);
  put_le(out, max32(entry.size));
  put_le(out, max32(entry.size));
  put_le(out, static_cast<uint16_t>(entry.name.size()));
  put_le(out, static_cast<uint16_t>(extra.size()));
  out.append(10, '\0');  // comment, disk, attributes
  put_le(out, max32(entry.header));
  return out + entry.name + extra;
}

std::string ZipLayout::gap(size_t i, uint32_t crc_of_previous) const {
  return (i == 0 ? "" : descriptor(entries_[i - 1], crc_of_previous)) + local_header(entries_[i]);
}

std::string ZipLayout::tail(std::span<const uint32_t> crcs) const {
  std::string out;
  out.reserve(size_ - gap_offset(count()));
  if (!entries_.empty()) out += descriptor(entries_.back(), crcs.back());
  for (size_t i = 0; i < entries_.size(); ++i) out += central_header(entries_[i], crcs[i]);

  out += "PK\6\6";
  put_le<uint64_t>(out, 56 - 12);  // bytes that follow in this record
  put_le<uint16_t>(out, 0x031e);   // made by: Unix, 3.0
  put_le<uint16_t>(out, 45);       // needed: 4.5, zip64
  put_le<uint64_t>(out, 0);        // disks
  put_le<uint64_t>(out, count());  // on this disk
  put_le<uint64_t>(out, count());
  put_le(out, central_size_);
  put_le(out, central_);

  out += "PK\6\7";
  put_le<uint32_t>(out, 0);  // disk
  put_le(out, central_ + central_size_);
  put_le<uint32_t>(out, 1);  // disks

  out += "PK\5\6";
  put_le<uint32_t>(out, 0);  // disks
  put_le(out, max16(count()));
  put_le(out, max16(count()));
  put_le(out, max32(central_size_));
  put_le(out, max32(central_));
  put_le<uint16_t>(out, 0);  // comment
  return out;
}

namespace {

// torch's own records. The format version is 1 although the alignment is told; so torch 2.13 writes
// it.
constexpr std::string_view kBefore[][2] = {{"data.pkl", ""},
                                           {".format_version", "1"},
                                           {".storage_alignment", "64"},
                                           {"byteorder", "little"}};
constexpr size_t kFirst = std::size(kBefore);  // the index of storage 0
constexpr std::string_view kVersion = "3\n";
constexpr uint64_t kSerializationIdSize = 40;
static_assert(kAlignment == 64);

std::vector<ZipLayout::Record> records(uint64_t pickle_size,
                                       std::span<const uint64_t> storage_sizes) {
  std::vector<ZipLayout::Record> out;
  out.reserve(kFirst + storage_sizes.size() + 2);
  for (const auto& [name, content] : kBefore) out.push_back({std::string(name), content.size()});
  out[0].size = pickle_size;
  for (size_t i = 0; i < storage_sizes.size(); ++i)
    out.push_back({"data/" + std::to_string(i), storage_sizes[i]});
  out.push_back({"version", kVersion.size()});
  out.push_back({".data/serialization_id", kSerializationIdSize});
  return out;
}

// A fingerprint of the records before it: twenty digits for their names, twenty for their contents.
// Here the names are numbered, so their count says it all; the contents are hashed as torch does:
// at::hash_combine, empty ones left out.
std::string serialization_id(const ZipLayout& zip, std::span<const uint32_t> crcs) {
  uint64_t hash = 0;
  for (size_t i = 0; i < crcs.size(); ++i) {
    if (zip.data_size(i) > 0) hash ^= uint64_t{crcs[i]} + 0x9e3779b9 + (hash << 6) + (hash >> 2);
  }
  return fmt::format("{:020}{:020}", crcs.size(), hash);
}

}  // namespace

FileLayout::FileLayout(std::string pickle, std::span<const uint64_t> storage_sizes)
    : pickle_(std::move(pickle)),
      n_storages_(storage_sizes.size()),
      zip_("archive", records(pickle_.size(), storage_sizes)) {}

uint64_t FileLayout::storage_offset(size_t i) const { return zip_.data_offset(kFirst + i); }
uint64_t FileLayout::tail_offset() const { return zip_.gap_offset(kFirst + n_storages_); }

std::string FileLayout::head() const {
  std::string out;
  uint32_t crc = 0;
  for (size_t i = 0; i < kFirst; ++i) {
    const std::string_view content = i == 0 ? pickle_ : kBefore[i][1];
    out += zip_.gap(i, crc);
    out += content;
    crc = crc32(as_bytes(content));
  }
  if (n_storages_ > 0) out += zip_.gap(kFirst, crc);
  return out;
}

std::string FileLayout::gap(size_t i, uint32_t crc_of_previous) const {
  return zip_.gap(kFirst + i, crc_of_previous);
}

std::string FileLayout::tail(std::span<const uint32_t> storage_crcs) const {
  std::vector<uint32_t> crcs;
  crcs.reserve(zip_.count());
  for (const auto& [name, content] : kBefore) crcs.push_back(crc32(as_bytes(content)));
  crcs[0] = crc32(as_bytes(pickle_));
  crcs.insert(crcs.end(), storage_crcs.begin(), storage_crcs.end());

  const size_t version = kFirst + n_storages_;
  std::string out = zip_.gap(version, crcs.back());
  out += kVersion;
  crcs.push_back(crc32(as_bytes(kVersion)));
  const std::string id = serialization_id(zip_, crcs);
  out += zip_.gap(version + 1, crcs.back());
  out += id;
  crcs.push_back(crc32(as_bytes(id)));
  return out + zip_.tail(crcs);
}

}  // namespace crossdock::torch_write
