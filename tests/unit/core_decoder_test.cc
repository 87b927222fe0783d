// SPDX-License-Identifier: Apache-2.0

// The loops of dequantisation, which are compiled twice and go eight at a time, against one element
// at a time by the definition.
#include "core/transform/decoder.h"

#include "core/transform/cast.h"
#include "core/transform/loops.h"
#include "tests/catch.h"

#include <bit>
#include <cstring>
#include <random>

using namespace crossdock;
using namespace crossdock::transform;

namespace {

std::mt19937 random_numbers(5);
uint64_t pick_below(uint64_t n) { return random_numbers() % n; }

std::vector<std::byte> random_bytes(size_t n) {
  std::vector<std::byte> out(n);
  for (std::byte& b : out) b = static_cast<std::byte>(pick_below(256));
  return out;
}

std::vector<float> random_floats(size_t n) {
  std::vector<float> out(n);
  for (float& f : out) f = std::bit_cast<float>(static_cast<uint32_t>(random_numbers()));
  return out;
}

// NaN too.
bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

// Bit after bit.
uint32_t code_at(const std::vector<std::byte>& codes, uint64_t place, uint32_t bits) {
  uint32_t out = 0;
  for (uint32_t b = 0; b < bits; ++b) {
    const uint64_t bit = place * bits + b;
    out |= (static_cast<uint32_t>(codes[bit / 8]) >> bit % 8 & 1) << b;
  }
  return out;
}

constexpr size_t kOrder[3][8] = {
    {0, 1, 2, 3, 4, 5, 6, 7}, {1, 0, 3, 2, 5, 4, 7, 6}, {0, 4, 1, 5, 2, 6, 3, 7}};

}  // namespace

TEST_CASE("decoder: codes of any size and order, any range of them") {
  for (uint32_t bits = 1; bits <= 8; ++bits) {
    for (const CodeOrder order :
         {CodeOrder::kLowFirst, CodeOrder::kHighFirst, CodeOrder::kInterleaved}) {
      if (bits != 4 && order != CodeOrder::kLowFirst) continue;
      const auto values = random_floats(size_t{1} << bits);
      const Decoder decoder("random", bits, values, order);
      constexpr uint64_t kCodes = 400;
      const auto codes = random_bytes(kCodes / 8 * bits + Decoder::kSlack);
      for (int round = 0; round < 300; ++round) {
        const uint64_t first = pick_below(kCodes), n = pick_below(kCodes - first + 1);
        std::vector<float> want, got(n);
        for (uint64_t i = first; i < first + n; ++i) {
          const uint64_t place = i / 8 * 8 + kOrder[static_cast<size_t>(order)][i % 8];
          want.push_back(values[code_at(codes, place, bits)]);
        }
        decoder.decode(codes.data(), first, n, got.data());
        REQUIRE(same_bits(got, want));
      }
    }
  }
}

TEST_CASE("decoder: what is computed is what the table has") {
  auto counted = unsigned_values(8), rotated = counted;
  for (float& value : counted) value -= 128;
  std::rotate(rotated.begin(), rotated.begin() + 1, rotated.end());
  for (const auto& values :
       {e4m3_values(), e5m2_values(), e4m3fnuz_values(), e5m2fnuz_values(), exponents(true),
        exponents(false), signed_values(), unsigned_values(8), counted, rotated}) {
    const Decoder decoder("table", 8, values);
    const auto codes = random_bytes(2000 + Decoder::kSlack);
    for (uint64_t n = 0; n < 2000; n += 1 + n / 3) {
      const uint64_t first = pick_below(2000 - n);
      std::vector<float> want, got(n);
      for (uint64_t i = 0; i < n; ++i)
        want.push_back(values[static_cast<uint8_t>(codes[first + i])]);
      decoder.decode(codes.data(), first, n, got.data());
      REQUIRE(same_bits(got, want));
    }
  }
}

TEST_CASE("decoder: blocks of values have a number each, the first is short") {
  constexpr void (*kLoops[])(float*, const Blocks&, size_t) = {subtract, multiply, divide};
  const auto changed = [](size_t loop, float a, float b) {
    return loop == 0 ? a - b : loop == 1 ? a * b : a / b;
  };
  for (int round = 0; round < 2000; ++round) {
    const uint64_t block = 1 + pick_below(70), left = 1 + pick_below(block);
    std::vector<float> values(pick_below(300)), numbers(301);
    for (float& v : values) v = static_cast<float>(pick_below(1000)) / 7;
    for (float& v : numbers) v = static_cast<float>(1 + pick_below(1000)) / 3;
    const size_t loop = pick_below(3);
    std::vector<float> want;
    for (size_t i = 0; i < values.size(); ++i)
      want.push_back(changed(loop, values[i], numbers[i < left ? 0 : 1 + (i - left) / block]));
    kLoops[loop](values.data(), {numbers.data(), left, block}, values.size());
    REQUIRE(same_bits(values, want));
  }
}

TEST_CASE("decoder: rounding to bfloat16 is casting there and back") {
  auto values = random_floats(100'001);
  for (const uint32_t bits : {0u, 0x80000000u, 0x7F800000u, 0xFF800000u, 0x7F800001u, 0xFFFFFFFFu,
                              0x7F7FFFFFu, 0x00008000u, 0x00018000u, 0x3F808000u, 0x3F818000u})
    values.push_back(std::bit_cast<float>(bits));
  std::vector<uint16_t> brain(values.size());
  std::vector<float> want(values.size());
  using manifest::DType;
  find_cast(DType::F32, DType::BF16)(reinterpret_cast<const std::byte*>(values.data()),
                                     reinterpret_cast<std::byte*>(brain.data()), values.size());
  find_cast(DType::BF16, DType::F32)(reinterpret_cast<const std::byte*>(brain.data()),
                                     reinterpret_cast<std::byte*>(want.data()), values.size());
  round_to_bf16(values.data(), values.size());
  CHECK(same_bits(values, want));
}

TEST_CASE("decoder: what a group has, and groups that are none") {
  const auto check = [](auto element) {
    using T = decltype(element);
    std::vector<T> from(37), out(100);
    for (T& t : from) t = static_cast<T>(random_numbers());
    std::vector<int32_t> groups(out.size());
    for (int32_t& g : groups) g = static_cast<int32_t>(pick_below(from.size()));
    const auto pick_of = [&] {
      return pick(reinterpret_cast<const std::byte*>(groups.data()),
                  reinterpret_cast<const std::byte*>(from.data()), sizeof(T), from.size(),
                  reinterpret_cast<std::byte*>(out.data()), out.size());
    };
    CHECK(pick_of() == std::nullopt);
    for (size_t i = 0; i < out.size(); ++i) CHECK(out[i] == from[static_cast<size_t>(groups[i])]);
    groups[77] = 37;
    CHECK(pick_of() == 37);
    groups[77] = -2;
    CHECK(pick_of() == -2);
  };
  check(uint16_t{});
  check(uint32_t{});
}
