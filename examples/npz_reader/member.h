// SPDX-License-Identifier: Apache-2.0

// The bytes of one member of a zip archive, stored or deflated, by ranges of what it unpacks to.
//
// A deflated member is one stream: a range that begins where the last one ended goes on there, one
// that begins behind skips, one that begins before starts the stream anew. Whoever has read all of
// a member, in whatever ranges, has had it checked against its CRC.
#pragma once

#include "zip.h"

#include <map>
#include <memory>
#include <mutex>
#include <optional>

namespace npz {

// The CRC of bytes that come in any ranges, put together when there are no gaps left.
class RangeCrc {
 public:
  void add(uint64_t offset, std::span<const std::byte> bytes);
  // Of all bytes up to `size`, once all were added.
  std::optional<uint32_t> whole(uint64_t size) const;

 private:
  struct Piece {
    uint64_t end;
    uint32_t crc;
  };
  void insert(uint64_t begin, Piece piece);

  std::map<uint64_t, Piece> pieces_;  // by where they begin; they are disjoint and do not touch
};

class Inflater;  // member.cc

class Member {
 public:
  Member(const Source& source, Entry entry);
  ~Member();

  const Entry& entry() const { return entry_; }
  // Buffers that one read() holds.
  uint64_t scratch() const;

  // [any] Reads of one member wait for each other.
  Result<void> read(const Host& host, uint64_t offset, std::span<std::byte> out);
  // Gives back what zlib holds between two reads, some 40 KiB; the next one starts anew.
  void rest();

 private:
  Result<void> inflate(const Host& host, uint64_t offset, std::span<std::byte> out);
  Result<void> check_crc(uint32_t found) const;

  const Entry entry_;
  const Source packed_;               // its own bytes in the archive
  std::mutex mutex_;                  // of all below
  std::unique_ptr<Inflater> stream_;  // of a deflated one, while it is half read
  RangeCrc crc_;                      // of a stored one
};

}  // namespace npz
