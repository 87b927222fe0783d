#include "core/io/digest.h"

#include <fmt/format.h>
#include <openssl/evp.h>
#include <xxhash.h>
#if defined(__x86_64__) && __has_include(<xxh_x86dispatch.h>)
#include <xxh_x86dispatch.h>  // the same functions, with AVX2 or AVX512 where the processor has them
#endif

#include <algorithm>
#include <array>
#include <new>

namespace crossdock::io {

struct Digest::State {
  XXH3_state_t* xxh3 = nullptr;
  EVP_MD_CTX* sha256 = nullptr;
  ~State() {
    XXH3_freeState(xxh3);
    EVP_MD_CTX_free(sha256);
  }
};

Digest::Digest(DigestKind kind) : state_(std::make_unique<State>()) {
  if (kind == DigestKind::kXxh3) {
    state_->xxh3 = XXH3_createState();
    if (!state_->xxh3) throw std::bad_alloc();
    XXH3_128bits_reset(state_->xxh3);
  } else {
    state_->sha256 = EVP_MD_CTX_new();
    if (!state_->sha256 || EVP_DigestInit_ex(state_->sha256, EVP_sha256(), nullptr) != 1)
      throw std::bad_alloc();
  }
}

Digest::~Digest() = default;
Digest::Digest(Digest&&) noexcept = default;
Digest& Digest::operator=(Digest&&) noexcept = default;

void Digest::update(std::span<const std::byte> bytes) {
  if (state_->xxh3) {
    XXH3_128bits_update(state_->xxh3, bytes.data(), bytes.size());
  } else {
    EVP_DigestUpdate(state_->sha256, bytes.data(), bytes.size());
  }
}

void Digest::update_zeros(uint64_t n) {
  static constexpr std::array<std::byte, 64 << 10> kZeros{};  // stays in the first cache
  for (; n > 0; n -= std::min<uint64_t>(n, kZeros.size()))
    update({kZeros.data(), std::min<uint64_t>(n, kZeros.size())});
}

std::string Digest::finish() {
  std::array<unsigned char, EVP_MAX_MD_SIZE> raw{};
  unsigned size = 0;
  std::string out;
  if (state_->xxh3) {
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(state_->xxh3));
    std::copy_n(canonical.digest, size = sizeof canonical.digest, raw.begin());
    out = "xxh3:";
  } else {
    EVP_DigestFinal_ex(state_->sha256, raw.data(), &size);
    out = "sha256:";
  }
  for (unsigned i = 0; i < size; ++i) fmt::format_to(std::back_inserter(out), "{:02x}", raw[i]);
  return out;
}

}  // namespace crossdock::io
