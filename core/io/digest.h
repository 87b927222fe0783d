// Digests of bytes, taken as they stream past: "xxh3:<32 hex>" (XXH3-128, canonical form, as
// `xxhsum -H2` prints it) and "sha256:<64 hex>".
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace crossdock::io {

enum class DigestKind { kXxh3, kSha256 };

class Digest {
 public:
  explicit Digest(DigestKind kind = DigestKind::kXxh3);
  ~Digest();
  Digest(Digest&&) noexcept;
  Digest& operator=(Digest&&) noexcept;

  void update(std::span<const std::byte> bytes);
  void update_zeros(uint64_t n);
  std::string finish();  // with its prefix; once

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace crossdock::io
