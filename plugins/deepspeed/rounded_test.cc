// SPDX-License-Identifier: Apache-2.0
#include "plugins/deepspeed/rounded.h"

#include "tests/catch.h"

#include <bit>
#include <cstring>
#include <limits>

using namespace crossdock;
using manifest::DType;

namespace {

uint16_t rounded(DType dtype, float value) {
  uint16_t out = 0;
  const auto read = [&](uint64_t, std::span<std::byte> to) -> Result<void> {
    std::memcpy(to.data(), &value, to.size());
    return {};
  };
  REQUIRE(deepspeed::read_rounded(dtype, 0, std::as_writable_bytes(std::span(&out, 1)), read));
  return out;
}

constexpr float kInfinity = std::numeric_limits<float>::infinity();

}  // namespace

// Expected bits: torch.tensor(x).to(dtype).view(torch.int16), torch 2.13.
TEST_CASE("bf16 as torch rounds") {
  const auto [value, bits] = GENERATE(table<float, int>({{1.0f, 0x3F80},
                                                         {-0.0f, 0x8000},
                                                         {1.00390625f, 0x3F80},
                                                         {1.01171875f, 0x3F82},
                                                         {3.4e38f, 0x7F80},
                                                         {kInfinity, 0x7F80},
                                                         {-kInfinity, 0xFF80},
                                                         {1e-40f, 0x0001}}));
  CHECK(rounded(DType::BF16, value) == bits);
  CHECK(rounded(DType::BF16, std::bit_cast<float>(0x7F800001)) == 0x7FC0);
}

TEST_CASE("fp16 as torch rounds") {
  const auto [value, bits] = GENERATE(table<float, int>({{1.0f, 0x3C00},
                                                         {-0.0f, 0x8000},
                                                         {1.00048828125f, 0x3C00},
                                                         {1.00146484375f, 0x3C02},
                                                         {65504.0f, 0x7BFF},
                                                         {65519.9f, 0x7BFF},
                                                         {65520.0f, 0x7C00},
                                                         {-kInfinity, 0xFC00},
                                                         {6.103515625e-05f, 0x0400},
                                                         {6.1e-05f, 0x03FF},
                                                         {5.96e-08f, 0x0001},
                                                         {2.98e-08f, 0x0000},
                                                         {2.9802322387695312e-08f, 0x0000},
                                                         {2.98023259e-08f, 0x0001},
                                                         {8.940696716308594e-08f, 0x0002}}));
  CHECK(rounded(DType::F16, value) == bits);
}

TEST_CASE("a piece from the middle, longer than the buffer") {
  std::vector<uint16_t> out(40'000);
  const auto read = [](uint64_t begin, std::span<std::byte> to) -> Result<void> {
    for (uint64_t i = 0; i < to.size() / 4; ++i) {
      const auto value = static_cast<float>((begin + i) % 251);
      std::memcpy(to.data() + 4 * i, &value, 4);
    }
    return {};
  };
  REQUIRE(deepspeed::read_rounded(DType::BF16, 17, std::as_writable_bytes(std::span(out)), read));
  for (size_t i = 0; i < out.size(); ++i)
    REQUIRE(std::bit_cast<float>(uint32_t{out[i]} << 16) == static_cast<float>((17 + i) % 251));
}
