// SPDX-License-Identifier: Apache-2.0

// What git calls a file: the SHA-1 of "blob <size>\0" and its bytes, "git:<40 hex>". The Hub knows
// small files by it, as `git hash-object` prints it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace crossdock::io {

class GitBlob {
 public:
  explicit GitBlob(uint64_t size);
  ~GitBlob();
  GitBlob(const GitBlob&) = delete;
  GitBlob& operator=(const GitBlob&) = delete;

  void update(std::span<const std::byte> bytes);
  std::string finish();  // once, after all bytes

 private:
  struct State;
  const std::unique_ptr<State> state_;
};

}  // namespace crossdock::io
