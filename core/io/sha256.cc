// SPDX-License-Identifier: Apache-2.0
#include "core/io/sha256.h"

#include "core/io/evp_digest.h"

namespace crossdock::io {

struct Sha256::State {
  EvpDigest digest{EVP_sha256()};
};

Sha256::Sha256() : state_(std::make_unique<State>()) {}
Sha256::~Sha256() = default;

void Sha256::update(std::span<const std::byte> bytes) { state_->digest.update(bytes); }

std::string Sha256::finish() { return "sha256:" + state_->digest.finish(); }

}  // namespace crossdock::io
