// SPDX-License-Identifier: Apache-2.0

// Vectors: FIPS 180-4's examples.
#include "core/io/sha256.h"

#include <crossdock/bytes.hpp>

#include <random>

#include "tests/catch.h"

using crossdock::as_bytes;
using crossdock::io::Sha256;

namespace {
std::string of(const std::string& bytes) {
  Sha256 sum;
  sum.update(as_bytes(bytes));
  return sum.finish();
}
}  // namespace

TEST_CASE("SHA-256 gives the standard's vectors") {
  CHECK(of("") == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(of("abc") == "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(of("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq") ==
        "sha256:248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  CHECK(of(std::string(1'000'000, 'a')) ==
        "sha256:cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST_CASE("pieces give what the whole gives") {
  std::mt19937 random(1);
  std::string bytes(300'000, '\0');
  for (char& c : bytes) c = static_cast<char>(random());
  Sha256 sum;
  for (size_t at = 0; at < bytes.size();) {
    const size_t n = std::min<size_t>(random() % 5000, bytes.size() - at);  // empty ones among them
    sum.update(as_bytes(bytes).subspan(at, n));
    at += n;
  }
  CHECK(sum.finish() == of(bytes));
}
