// SPDX-License-Identifier: Apache-2.0

// SHA-256 of bytes as they stream past: "sha256:<64 hex>", which people compare with `sha256sum`.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

namespace crossdock::io {

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void update(std::span<const std::byte> bytes);
  std::string finish();  // once

 private:
  struct State;
  const std::unique_ptr<State> state_;
};

}  // namespace crossdock::io
