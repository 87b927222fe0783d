// SPDX-License-Identifier: Apache-2.0

// A PyTorch file (what torch.save writes since 1.6) laid out before any of its data is known.
//
// Sizes and offsets follow from the records' names and sizes alone; only CRCs follow from data. So
// a file can be planned exactly, written strictly in order and hashed while it streams:
//
//   FileLayout file(pickle, {n_bytes_of_storage_0, ...});
//   file.head();                     // from offset 0 to the data of storage 0
//   ...data of storage 0...          // at file.storage_offset(0)
//   file.gap(1, crc_of_storage_0);   // between storages 0 and 1
//   ...
//   file.tail(crcs_of_all_storages); // at file.tail_offset(), to file.size()
//
// The bytes are those of torch 2.13 on a little-endian machine, except for the fingerprint in
// .data/serialization_id, whose first half torch takes from its standard library's hash of the
// record names, and the name of the root folder, which torch takes from the file's name: ours is
// constant, so that the same content gives the same bytes. Values; const methods from any thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace crossdock::torch_write {

// The zip below it: stored records, each with its data at a multiple of 64 bytes.
class ZipLayout {
 public:
  struct Record {
    std::string name;
    uint64_t size;
  };
  ZipLayout(std::string_view root, std::vector<Record> records);

  size_t count() const { return entries_.size(); }
  uint64_t size() const { return size_; }
  uint64_t data_offset(size_t i) const { return entries_[i].data; }
  uint64_t data_size(size_t i) const { return entries_[i].size; }
  // The end of record i - 1, where gap(i) begins; for i == count() the tail.
  uint64_t gap_offset(size_t i) const {
    return i == 0 ? 0 : entries_[i - 1].data + entries_[i - 1].size;
  }
  // What stands between the data of record i - 1 and that of record i. The first gap needs no CRC.
  std::string gap(size_t i, uint32_t crc_of_previous = 0) const;
  std::string tail(std::span<const uint32_t> crcs) const;

 private:
  struct Entry {
    std::string name;
    uint64_t size = 0, header = 0, data = 0;  // header, data: offsets in the file
  };
  static bool is_zip64(const Entry& entry);
  static uint64_t descriptor_size(const Entry& entry);
  static std::string descriptor(const Entry& entry, uint32_t crc);
  static std::string local_header(const Entry& entry);
  static std::string central_header(const Entry& entry, uint32_t crc);

  std::vector<Entry> entries_;
  uint64_t central_ = 0, central_size_ = 0, size_ = 0;
};

class FileLayout {
 public:
  FileLayout(std::string pickle, std::span<const uint64_t> storage_sizes);

  uint64_t size() const { return zip_.size(); }
  size_t n_storages() const { return n_storages_; }
  uint64_t storage_offset(size_t i) const;
  uint64_t tail_offset() const;

  std::string head() const;
  std::string gap(size_t i, uint32_t crc_of_previous) const;  // 1 <= i < n_storages()
  std::string tail(std::span<const uint32_t> storage_crcs) const;

 private:
  std::string pickle_;
  size_t n_storages_;
  ZipLayout zip_;
};

}  // namespace crossdock::torch_write
