// SPDX-License-Identifier: Apache-2.0
#include "core/io/git_blob.h"

#include "core/io/evp_digest.h"

namespace crossdock::io {

struct GitBlob::State {
  EvpDigest digest{EVP_sha1()};
};

GitBlob::GitBlob(uint64_t size) : state_(std::make_unique<State>()) {
  const std::string head = fmt::format("blob {}", size);
  // With the zero at its end.
  state_->digest.update(std::as_bytes(std::span(head.c_str(), head.size() + 1)));
}
GitBlob::~GitBlob() = default;

void GitBlob::update(std::span<const std::byte> bytes) { state_->digest.update(bytes); }

std::string GitBlob::finish() { return "git:" + state_->digest.finish(); }

}  // namespace crossdock::io
