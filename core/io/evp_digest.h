// SPDX-License-Identifier: Apache-2.0

// OpenSSL's digests as bytes stream past: what sha256.cc and git_blob.cc share.
#pragma once

#include <fmt/format.h>
#include <openssl/evp.h>

#include <array>
#include <cstddef>
#include <new>
#include <span>
#include <string>

namespace crossdock::io {

class EvpDigest {
 public:
  explicit EvpDigest(const EVP_MD* type) : context_(EVP_MD_CTX_new()) {
    if (context_ && EVP_DigestInit_ex(context_, type, nullptr) == 1) return;
    EVP_MD_CTX_free(context_);
    throw std::bad_alloc();
  }
  ~EvpDigest() { EVP_MD_CTX_free(context_); }
  EvpDigest(const EvpDigest&) = delete;
  EvpDigest& operator=(const EvpDigest&) = delete;

  void update(std::span<const std::byte> bytes) {
    EVP_DigestUpdate(context_, bytes.data(), bytes.size());
  }
  // In hexadecimal digits; once.
  std::string finish() {
    std::array<unsigned char, EVP_MAX_MD_SIZE> raw{};
    unsigned n = 0;
    EVP_DigestFinal_ex(context_, raw.data(), &n);
    return fmt::format("{:02x}", fmt::join(raw.data(), raw.data() + n, ""));
  }

 private:
  EVP_MD_CTX* const context_;
};

}  // namespace crossdock::io
