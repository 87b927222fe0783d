// Vectors: xxHash's own tests/sanity_test.c (XXH3-128, seed 0, its test buffer), and FIPS 180-4's
// examples for SHA-256.
#include "core/io/digest.h"

#include <crossdock/bytes.hpp>

#include <random>

#include "tests/catch.h"

using crossdock::as_bytes;
using crossdock::io::Digest;
using crossdock::io::DigestKind;

namespace {

std::string of(const std::string& bytes, DigestKind kind = DigestKind::kXxh3) {
  Digest digest(kind);
  digest.update(as_bytes(bytes));
  return digest.finish();
}

// The buffer that xxHash's vectors are over.
std::string xxhash_buffer(size_t n) {
  std::string out;
  uint64_t state = 2654435761u;
  for (size_t i = 0; i < n; ++i) {
    out += static_cast<char>(state >> 56);
    state *= 11400714785074694797u;
  }
  return out;
}

}  // namespace

TEST_CASE("XXH3-128 gives xxHash's own vectors, high half first") {
  CHECK(of("") == "xxh3:99aa06d3014798d86001c324468d497f");
  CHECK(of(xxhash_buffer(1)) == "xxh3:a6cd5e9392000f6ac44bdff4074eecdb");
  CHECK(of(xxhash_buffer(6)) == "xxh3:082afe0b8162d12a3e7039bdda43cfc6");
  CHECK(of(xxhash_buffer(12)) == "xxh3:6e3efd8fc7802b18061a192713f69ad9");
  CHECK(of(xxhash_buffer(24)) == "xxh3:0ce966e4678d37611e7044d28b1b901d");
  CHECK(of(xxhash_buffer(48)) == "xxh3:a002ac4e5478227ef942219aed80f67b");
  CHECK(of(xxhash_buffer(81)) == "xxh3:4952f58181ab00425e8bafb9f95fb803");
  CHECK(of(xxhash_buffer(222)) == "xxh3:337e09641b948717f1aebd597cec6b3a");
  CHECK(of(xxhash_buffer(403)) == "xxh3:1b6de21e332dd73dcdeb804d65c6dea4");
  CHECK(of(xxhash_buffer(512)) == "xxh3:18d2d110dcc9bca1617e49599013cb6b");
}

TEST_CASE("SHA-256 gives the standard's vectors") {
  const auto sha = [](const std::string& bytes) { return of(bytes, DigestKind::kSha256); };
  CHECK(sha("") == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(sha("abc") == "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(sha("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq") ==
        "sha256:248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  CHECK(sha(std::string(1'000'000, 'a')) ==
        "sha256:cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST_CASE("pieces give what the whole gives") {
  std::mt19937 random(1);
  std::string bytes(300'000, '\0');
  for (char& c : bytes) c = static_cast<char>(random());
  for (const DigestKind kind : {DigestKind::kXxh3, DigestKind::kSha256}) {
    Digest digest(kind);
    for (size_t at = 0; at < bytes.size();) {
      const size_t n =
          std::min<size_t>(random() % 5000, bytes.size() - at);  // empty ones among them
      digest.update(as_bytes(bytes).subspan(at, n));
      at += n;
    }
    CHECK(digest.finish() == of(bytes, kind));
  }
}

TEST_CASE("a run of zeros is as so many zero bytes") {
  for (const size_t n : {0, 1, 65'535, 65'536, 65'537, 1'000'000}) {
    for (const DigestKind kind : {DigestKind::kXxh3, DigestKind::kSha256}) {
      Digest digest(kind);
      digest.update(as_bytes("ab"));
      digest.update_zeros(n);
      digest.update(as_bytes("c"));
      CHECK(digest.finish() == of("ab" + std::string(n, '\0') + "c", kind));
    }
  }
}

TEST_CASE("a digest can be moved, and assigned over") {
  Digest first;
  first.update(as_bytes("a"));
  Digest second = std::move(first);
  second.update(as_bytes("bc"));
  Digest third(DigestKind::kSha256);
  third = std::move(second);
  CHECK(third.finish() == of("abc"));
}
