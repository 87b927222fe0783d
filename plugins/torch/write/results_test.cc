// SPDX-License-Identifier: Apache-2.0
#include "plugins/torch/write/results.h"

#include <crossdock/bytes.hpp>

#include "tests/catch.h"

using namespace crossdock;
using namespace crossdock::torch_write;

namespace {

using Parts = std::vector<WrittenPart>;
using Sizes = std::vector<uint64_t>;

// CRCs of Python: zlib.crc32(b"1234"), (b"56789") and (b"123456789").
constexpr uint32_t kHead = 0x9be3e0a3, kRest = 0x131da070, kWhole = 0xcbf43926;

std::string refusal(const Parts& parts, const Sizes& sizes) {
  const auto joined = join_parts(parts, sizes);
  return joined ? "" : joined.error().message;
}

}  // namespace

TEST_CASE("an item's result comes back as it went") {
  const ItemResult result{uint64_t{1} << 60,
                          {{0, 0, 127, 1}, {1, 0, 0, 0}, {70000, uint64_t{1} << 40, 128, ~0u}}};
  const auto back = ItemResult::decode(result.encode());
  REQUIRE(back);
  CHECK(back->n_beyond_fp16 == result.n_beyond_fp16);
  CHECK(back->parts == result.parts);
  const auto none = ItemResult::decode(ItemResult{}.encode());
  REQUIRE(none);
  CHECK(none->parts.empty());
}

TEST_CASE("the result of a file with one storage needs no memory of its own") {
  const ItemResult result{0, {{0, 0, 256 << 20, ~0u}}};
  CHECK(result.encode().size() <= std::string().capacity());
}

TEST_CASE("bytes that are no result are refused, wherever they end") {
  const std::string bytes = ItemResult{3, {{5, 1000, 2000, 7}}}.encode();
  for (size_t n = 0; n < bytes.size(); ++n) {
    CAPTURE(n);
    const auto cut_off = ItemResult::decode(std::string_view(bytes).substr(0, n));
    if (n == 1) {
      CHECK(cut_off);  // a result without parts
      continue;
    }
    REQUIRE_FALSE(cut_off);
    CHECK(cut_off.error().code == XD_INTERNAL);
  }
}

TEST_CASE("results are joined in the order of their items") {
  const std::string a = ItemResult{1, {{0, 0, 4, kHead}}}.encode(),
                    b = ItemResult{2, {{0, 4, 5, kRest}}}.encode();
  const std::string_view both[] = {a, b};
  const auto all = joined(both);
  REQUIRE(all);
  CHECK(all->n_beyond_fp16 == 3);
  CHECK(all->parts == Parts{{0, 0, 4, kHead}, {0, 4, 5, kRest}});
}

TEST_CASE("parts make the CRCs of whole storages") {
  const auto storages = join_parts(
      Parts{{0, 0, 0, 0}, {1, 0, 4, kHead}, {1, 4, 5, kRest}, {2, 0, 9, kWhole}}, Sizes{0, 9, 9});
  REQUIRE(storages);
  REQUIRE(storages->size() == 3);
  CHECK((*storages)[0].crc == 0);
  CHECK((*storages)[0].is_whole);
  CHECK((*storages)[1].crc == kWhole);
  CHECK_FALSE((*storages)[1].is_whole);
  CHECK((*storages)[2].crc == kWhole);
  CHECK((*storages)[2].is_whole);
}

TEST_CASE("parts that are missing, twice or too long are refused") {
  const Sizes sizes{9, 4};
  CHECK(refusal({{0, 0, 9, 1}, {1, 0, 4, 1}}, sizes).empty());
  for (const Parts& parts :
       {Parts{}, Parts{{0, 0, 9, 1}}, Parts{{0, 0, 4, 1}, {1, 0, 4, 1}},
        Parts{{0, 4, 5, 1}, {0, 0, 4, 1}, {1, 0, 4, 1}},
        Parts{{0, 0, 9, 1}, {0, 0, 9, 1}, {1, 0, 4, 1}}, Parts{{0, 0, 10, 1}, {1, 0, 4, 1}},
        Parts{{0, 0, 9, 1}, {1, 0, 4, 1}, {2, 0, 1, 1}}, Parts{{1, 0, 4, 1}, {0, 0, 9, 1}},
        Parts{{0, 0, 4, 1}, {0, 4, ~uint64_t{0}, 1}}}) {
    CHECK(refusal(parts, sizes).find("expected items' results to go on at byte") == 0);
  }
}
