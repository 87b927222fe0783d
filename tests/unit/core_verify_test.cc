// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <cstring>
#include <limits>

#include "core/io/git_blob.h"
#include "core/io/sha256.h"
#include "core/verify/difference.h"
#include "core/verify/elements.h"
#include "core/verify/files.h"
#include "core/verify/hub.h"
#include "core/verify/statistics.h"
#include "tests/unit/core_test_support.h"

using namespace crossdock;
using namespace crossdock::test;
using manifest::DType;

namespace {

std::string git_of(const std::string& text) {
  io::GitBlob blob(text.size());
  blob.update(as_bytes(text));
  return blob.finish();
}

std::vector<double> numbers(DType dtype, const std::vector<uint8_t>& bytes, size_t n) {
  std::vector<double> out(n);
  verify::to_doubles(dtype, reinterpret_cast<const std::byte*>(bytes.data()), 0, out);
  return out;
}

}  // namespace

TEST_CASE("a file has the hash that git gives it") {
  // printf 'hello\n' | git hash-object --stdin, and of nothing
  CHECK(git_of("hello\n") == "git:ce013625030ba8dba906f756967f9e9ca394464a");
  CHECK(git_of("") == "git:e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
}

TEST_CASE("elements of every type are numbers") {
  CHECK(numbers(DType::BF16, {0x80, 0x3F, 0x20, 0xC0}, 2) == std::vector<double>{1, -2.5});
  CHECK(numbers(DType::F16, {0x00, 0x3C, 0x00, 0x80}, 2) == std::vector<double>{1, -0.0});
  CHECK(numbers(DType::I8, {0xFF, 3}, 2) == std::vector<double>{-1, 3});
  CHECK(numbers(DType::U16, {0xFF, 0xFF}, 1) == std::vector<double>{65535});
  CHECK(numbers(DType::F8_E4M3, {0x38, 0xC0}, 2) == std::vector<double>{1, -2});
  CHECK(numbers(DType::F8_E5M2, {0x3C, 0xC4}, 2) == std::vector<double>{1, -4});
  CHECK(numbers(DType::F8_E8M0, {127, 130}, 2) == std::vector<double>{1, 8});
  CHECK(numbers(DType::F4, {0x52, 0xF1}, 4) ==
        std::vector<double>{1, 3, 0.5, -6});  // low half first
  // Of E3M2 the codes 0x0C (1), 0x2E (-1.5), 0x1F (28, the largest) and 0x01 (2^-4, the smallest).
  const uint32_t packed = 0x0Cu | 0x2Eu << 6 | 0x1Fu << 12 | 0x01u << 18;
  CHECK(numbers(DType::F6_E3M2, {uint8_t(packed), uint8_t(packed >> 8), uint8_t(packed >> 16)},
                4) == std::vector<double>{1, -1.5, 28, 0.0625});
  CHECK_FALSE(verify::is_number(DType::C64));
}

TEST_CASE("elements are told as people read them") {
  const auto text = [](DType dtype, std::vector<uint8_t> bytes, uint64_t i = 0) {
    return verify::element_text(dtype, reinterpret_cast<const std::byte*>(bytes.data()), i);
  };
  CHECK(text(DType::BF16, {0, 0, 0xA0, 0x3F}, 1) == "1.25");
  CHECK(text(DType::F16, {0x00, 0xFC}) == "-inf");
  CHECK(text(DType::F16, {0x01, 0x7E}) == "nan (0x7e01)");
  CHECK(text(DType::I64, {0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF}) == "-2");
  CHECK(text(DType::U64, {0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF}) ==
        "18446744073709551615");
  CHECK(text(DType::C32, {1, 2, 3, 4}) == "0x04030201");
  CHECK(verify::place_text("a\n", std::vector<uint64_t>{4, 20}, 77) == "tensor \"a\\x0a\" [3, 17]");
  CHECK(verify::place_text("a", std::vector<uint64_t>{}, 0) == "tensor \"a\" []");
}

TEST_CASE("the first element with other bits is found, in sub-byte types too") {
  const auto first = [](DType dtype, const std::string& a, const std::string& b, uint64_t n) {
    return verify::first_difference(dtype, as_bytes(a).data(), as_bytes(b).data(), n);
  };
  CHECK(first(DType::F32, "aaaabbbbcccc", "aaaabbbbcccd", 3) == 2);
  CHECK(first(DType::F32, "aaaabbbb", "aaaabbbb", 2) == 2);
  CHECK(first(DType::F4, "\x12\x34", "\x12\x44", 4) == 3);
  CHECK(first(DType::F6_E2M3, std::string(3, '\0'), std::string("\0\0\x04", 3), 4) == 3);
}

TEST_CASE("a distance in ulp counts the steps of the type") {
  using verify::ulp_distance;
  CHECK(ulp_distance(DType::F32, 1, std::nextafter(1.0f, 2.0f)) == 1);
  CHECK(ulp_distance(DType::F64, 1, std::nextafter(1.0, 2.0)) == 1);
  CHECK(ulp_distance(DType::BF16, 1, 1 + 1.0 / 128) == 1);
  CHECK(ulp_distance(DType::F16, 1, 1 + 1.0 / 128) == 8);
  CHECK(ulp_distance(DType::BF16, 1, 1 + 1.0 / 1024) == 0);  // one value of the type
  CHECK(ulp_distance(DType::F32, 0.0, -0.0) == 0);
  const float least = std::numeric_limits<float>::denorm_min();
  CHECK(ulp_distance(DType::F32, least, -least) == 2);
  const double huge = std::numeric_limits<double>::infinity();
  CHECK(ulp_distance(DType::F64, huge, -huge) == 2 * 0x7FF0000000000000u);
  CHECK(ulp_distance(DType::F32, huge, std::numeric_limits<float>::max()) == 1);
  CHECK(*verify::coarser(DType::BF16, DType::F16) == DType::BF16);
  CHECK(*verify::coarser(DType::F64, DType::F32) == DType::F32);
  CHECK_FALSE(verify::coarser(DType::I8, DType::F32));
}

TEST_CASE("files are held against any of their digests") {
  const TempDir dir;
  std::string large(100'000'000, '\0');  // of several tasks
  for (size_t i = 0; i < large.size(); i += 1013) large[i] = static_cast<char>(i / 1013);
  put(dir / "large", large);
  put(dir / "small", "hello\n");
  put(dir / "empty", "");
  io::Sha256 sha;
  sha.update(as_bytes(large));
  std::vector<verify::ExpectedFile> files{
      {"tree", dir / "large", large.size(), tree_digest_of(large)},
      {"sha", dir / "large", {}, sha.finish()},
      {"git", dir / "small", 6, "git:ce013625030ba8dba906f756967f9e9ca394464a"},
      {"none", dir / "empty", 0, tree_digest_of("")},
      {"size", dir / "small", 6, ""}};
  const std::atomic<bool> never{false};
  const auto problems = [&](unsigned threads, uint64_t bytes = 8 << 20) {
    base::Memory memory(bytes);
    verify::Findings findings;
    REQUIRE(verify::check_files({io::Os::real(), memory, threads, never, {}}, files, findings));
    return findings.verdict();
  };
  for (const unsigned threads : {1u, 2u, 5u}) CHECK(problems(threads).is_good());
  large[99'999'999] = 1;
  put(dir / "large", large);
  put(dir / "small", "hellp\n");
  put(dir / "empty", "1");
  const auto verdict = problems(2);
  CHECK(verdict.n_problems == 4);  // one for each file, whatever its pieces
  CHECK(contains(verdict.problems[0], "git: expected git:"));
  CHECK(verdict.problems[1] == "none: expected 0 bytes, found 1");
  CHECK(contains(verdict.problems[2], "sha: expected sha256:"));
  CHECK(contains(verdict.problems[3], "tree: expected tree:"));
}

TEST_CASE("only the first problems are kept, and all are counted") {
  verify::Findings findings;
  CHECK(findings.verdict().is_good());
  for (int i = 0; i < 50; ++i) findings.problem(cat("p", 100 - i));
  findings.settle();
  findings.note("once");
  findings.note("once");
  const auto verdict = findings.verdict();
  CHECK(verdict.n_problems == 50);
  CHECK(verdict.problems.size() == verify::Findings::kMostListed);
  CHECK(verdict.problems[0] == "p100");
  CHECK(verdict.notes == std::vector<std::string>{"once"});
}
