// SPDX-License-Identifier: Apache-2.0

// Reads a header of unknown length in order, a window at a time, in the file's byte order.
//
// The first read that fails keeps its error; from then on every read gives zero or nothing, so a
// parser may read a group of fields and test once.
#pragma once

#include <crossdock/bytes.hpp>
#include <crossdock/result.hpp>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "plugins/reader_gguf/container.h"

namespace crossdock::reader_gguf {

class Stream {
 public:
  Stream(const ReadAt& read, uint64_t file_size) : read_(read), file_size_(file_size) {}

  void swap_bytes() { big_endian_ = true; }
  uint64_t offset() const { return window_begin_ + at_; }
  uint64_t left() const { return file_size_ - offset(); }
  bool failed() const { return error_.has_value(); }
  Error error() const { return *error_; }
  void fail(Error error) {
    if (!error_) error_ = std::move(error);
  }

  template <class T>
  T number() {
    std::byte raw[sizeof(T)];
    T value{};
    if (!take(raw)) return value;
    if (big_endian_) std::reverse(raw, raw + sizeof(T));
    std::memcpy(&value, raw, sizeof(T));
    return value;
  }

  // A length of 64 bits, then so many bytes, of which there may be `most`.
  std::string text(uint64_t most) {
    const auto n = number<uint64_t>();
    std::string out;
    if (failed()) return out;
    if (n > std::min(most, left())) {
      fail(corrupt(cat("expected a text of at most ", std::min(most, left()),
                       " bytes, found a length of ", n, " at byte ", offset() - 8)));
      return out;
    }
    out.resize(n);
    return take(std::as_writable_bytes(std::span(out))) ? out : std::string();
  }

 private:
  static constexpr uint64_t kWindow = 256 << 10;

  bool take(std::span<std::byte> out) {
    if (failed()) return false;
    if (out.size() > left()) {
      fail(corrupt(cat("expected ", out.size(), " more bytes of the header at byte ", offset(),
                       ", found the end at byte ", file_size_,
                       ": the file is cut off, download it again")));
      return false;
    }
    while (!out.empty()) {
      if (at_ == window_.size() && !refill()) return false;
      const uint64_t n = std::min<uint64_t>(out.size(), window_.size() - at_);
      std::copy_n(window_.begin() + static_cast<ptrdiff_t>(at_), n, out.begin());
      at_ += n;
      out = out.subspan(n);
    }
    return true;
  }
  bool refill() {
    window_begin_ += window_.size();
    at_ = 0;
    window_.resize(std::min(kWindow, file_size_ - window_begin_));
    if (auto done = read_(window_begin_, window_); !done) fail(std::move(done).error());
    return !failed();
  }

  const ReadAt& read_;
  const uint64_t file_size_;
  bool big_endian_ = false;
  std::vector<std::byte> window_;
  uint64_t window_begin_ = 0, at_ = 0;
  std::optional<Error> error_;
};

}  // namespace crossdock::reader_gguf
