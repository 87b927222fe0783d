// SPDX-License-Identifier: Apache-2.0

// Reads the bytes of records, deflated ones too.
#pragma once

#include "plugins/torch/read/zip.h"

#include <memory>
#include <mutex>
#include <span>
#include <vector>

namespace crossdock::torch_read {

// A deflated record as it streams. zlib keeps about 40 KiB; the compressed bytes come through a
// small buffer.
class Inflater {
 public:
  Inflater(const Source& source, const Record& record);
  ~Inflater();
  Inflater(const Inflater&) = delete;

  const Record& record() const { return record_; }
  uint64_t at() const { return at_; }  // bytes given so far
  // The next out.size() bytes. An error when the record's data is not deflate's, or ends early;
  // with the record's last byte also when there is more in it.
  Result<void> read(const Host& host, std::span<std::byte> out);

 private:
  struct State;
  Result<uint64_t> step(const Host& host, std::span<std::byte> out);
  Error broken(std::string_view found) const;

  Source source_;
  const Record& record_;
  std::unique_ptr<State> state_;
  uint64_t at_ = 0, taken_ = 0;  // of data, of stored bytes
};

// Any range of any record of one file, from any thread. Deflated records stream: a range that
// follows the one before costs only itself, another starts again at the record's beginning.
class RecordReader {
 public:
  explicit RecordReader(Source source) : source_(source) {}

  Result<void> read(const Host& host, const Record& record, uint64_t offset,
                    std::span<std::byte> out);

 private:
  std::unique_ptr<Inflater> take(const Record& record, uint64_t offset);
  void keep(std::unique_ptr<Inflater> inflater);

  Source source_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Inflater>> kept_;  // the latest last
};

// The CRC of the whole record's data, as it is now.
Result<uint32_t> crc_of(const Host& host, RecordReader& reader, const Record& record);

}  // namespace crossdock::torch_read
