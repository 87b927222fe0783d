#include "core/io/git_blob.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <array>
#include <new>

namespace crossdock::io {

struct GitBlob::State {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  ~State() { EVP_MD_CTX_free(context); }
};

GitBlob::GitBlob(uint64_t size) : state_(std::make_unique<State>()) {
  if (!state_->context || EVP_DigestInit_ex(state_->context, EVP_sha1(), nullptr) != 1)
    throw std::bad_alloc();
  const std::string head = fmt::format("blob {}", size);
  EVP_DigestUpdate(state_->context, head.c_str(), head.size() + 1);  // with the zero at its end
}

GitBlob::~GitBlob() = default;

void GitBlob::update(std::span<const std::byte> bytes) {
  EVP_DigestUpdate(state_->context, bytes.data(), bytes.size());
}

std::string GitBlob::finish() {
  std::array<unsigned char, 20> raw{};
  EVP_DigestFinal_ex(state_->context, raw.data(), nullptr);
  return fmt::format("git:{:02x}", fmt::join(raw, ""));
}

}  // namespace crossdock::io
