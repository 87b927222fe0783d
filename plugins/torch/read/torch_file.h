// SPDX-License-Identifier: Apache-2.0

// One file of torch.save, opened: its pickle, and where each storage's bytes lie. Both formats: the
// zip of torch 1.6 and later, and the stream of pickles and storages before it. FORMAT.md has the
// facts and the rules.
#pragma once

#include "plugins/torch/read/pickle.h"
#include "plugins/torch/read/record.h"

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace crossdock::torch_read {

// Whether a file begins as torch.save's do, in either format. Other zip files begin so too.
bool looks_like_torch(const Host& host, const Source& source);

// What a file is that begins like no checkpoint, where that is known; else empty.
std::string_view what_it_is_instead(const Host& host, const Source& source);

// The help of --verify-crc, which all readers of such files have.
inline constexpr const char* kVerifyCrcHelp = "check the CRC of every record that torch.save wrote";

class TorchFile {
 public:
  // `verify_crc`: reads the whole file and compares every record's CRC (zip only; the old format
  // has none).
  static Result<std::unique_ptr<TorchFile>> open(const Host& host, const Source& source,
                                                 bool verify_crc);
  // One archive among those of a larger file, which the source is a window of: a zip without a
  // comment.
  static Result<std::unique_ptr<TorchFile>> open_archive(const Host& host, const Source& source,
                                                         bool verify_crc);

  const Pickle& pickle() const { return *pickle_; }
  // The folder of the zip's records, which torch.save calls after the file: its name without the
  // ending, as it was then. "archive" of a file object; empty in the old format.
  const std::string& root() const { return root_; }
  // The record with the bytes of a storage of the pickle: there, and of the size that the pickle
  // says.
  Result<uint32_t> find_storage(const Storage& storage) const;
  // When nothing needs the pickle any longer.
  void drop_pickle();

  const Record& record(uint32_t i) const { return records_[i]; }
  bool big_endian() const { return big_endian_; }
  RecordReader& reader() { return reader_; }

 private:
  explicit TorchFile(const Source& source) : source_(source), reader_(source) {}
  Result<void> open_zip(const Host& host, bool verify_crc, uint64_t max_comment_bytes);
  Result<void> open_legacy(const Host& host);
  Result<void> read_legacy_storages(const Host& host, const Pickle& keys);

  Source source_;
  std::optional<Buffer> bytes_;  // the pickle's, which pickle_ borrows
  std::optional<Pickle> pickle_;
  std::vector<Record> records_;
  std::string root_;
  std::vector<uint32_t> by_key_;  // records, sorted by storage key
  size_t key_at_ = 0;             // where a record's key begins in its name
  bool big_endian_ = false;
  RecordReader reader_;
};

}  // namespace crossdock::torch_read
