// SPDX-License-Identifier: Apache-2.0
#include "plugins/reader_zero/tensor_parallel.h"

#include "plugins/common/boxes.h"
#include "tests/support/plugin_checks.h"

using namespace crossdock;
using namespace crossdock::reader_zero;
using test::has;

namespace {

Pattern pattern(const std::string& text) { return *Pattern::compile(text); }

// Where each element of the whole lies: "rank:element of its share", row by row.
std::string map_of(const UniversalInfo& info, const std::vector<Shape>& shares) {
  uint64_t pairs = common::kMaxPairs;
  const auto made = sharing_of(info, "w", shares, pairs);
  if (!made) return made.error().message;
  const Sharing& s = *made;
  std::vector<std::string> whole(*checked_product(s.shape));
  for (const Held& box : s.boxes) {
    for (uint64_t i = 0; i < *checked_product(box.sizes); ++i) {
      uint64_t rest = i, to = 0, from = 0, of_whole = 1, of_share = 1;
      for (size_t d = s.shape.size(); d-- > 0;) {
        to += (box.offsets[d] + rest % box.sizes[d]) * of_whole;
        from += (box.in_share[d] + rest % box.sizes[d]) * of_share;
        of_whole *= s.shape[d];
        of_share *= s.shares[box.rank][d];
        rest /= box.sizes[d];
      }
      whole[to] += cat(whole[to].empty() ? "" : "=", box.rank, ":", from);
    }
  }
  std::string out = cat(s.is_average ? "mean " : "");
  for (const uint64_t n : s.shape) out += cat(n, " ");
  for (const std::string& one : whole) out += cat("| ", one, " ");
  return out.substr(0, out.size() - 1);
}

AffinePiece piece(Shape shape, uint64_t source, uint64_t dest, Shape source_strides,
                  Shape dest_strides) {
  return {std::move(shape),        source, dest, std::move(source_strides),
          std::move(dest_strides), false};
}

}  // namespace

TEST_CASE("tensor-parallel shares by patterns") {
  UniversalInfo info;
  CHECK(map_of(info, {{1, 2}, {2, 2}}) == "3 2 | 0:0 | 0:1 | 1:0 | 1:1 | 1:2 | 1:3");
  CHECK(map_of(info, {{2}, {0}}) == "2 | 0:0 | 0:1");
  CHECK(has(map_of(info, {{1, 2}, {1, 3}}),
            "tensor-parallel shares of \"w\": expected shares that differ in dimension 0 alone, "
            "found [1, 2] and [1, 3] on rank 1"));
  info.row_parallel.push_back(pattern("w"));
  CHECK(map_of(info, {{2, 1}, {2, 2}}) == "2 3 | 0:0 | 1:0 | 1:1 | 0:1 | 1:2 | 1:3");
  CHECK(has(map_of(info, {{2}, {2}}), "cut along dimension 1, found a shape of 1"));
  info.two_sub_parameters.push_back(pattern("w"));
  CHECK(map_of(info, {{2}, {2}}) == "4 | 0:0 | 1:0 | 0:1 | 1:1");
  info.averaged.push_back(pattern("w"));
  CHECK(map_of(info, {{1}, {1}}) == "mean 1 | 0:0=1:0");
  info.replicated.push_back(pattern("w"));
  CHECK(map_of(info, {{1}, {1}}) == "1 | 0:0=1:0");
  CHECK(has(map_of(info, {{1}, {2}}), "expected it whole on every rank, found [1] on rank 0 and"));
  info.replicated.push_back(pattern("."));
  CHECK(has(map_of(info, {{1}, {1}}),
            "expected one pattern of its kind for \"w\", found \"w\" and \".\""));
}

TEST_CASE("tensor-parallel shares of a vocabulary are without padding") {
  UniversalInfo info;
  info.vocabulary.push_back(pattern("w"));
  CHECK(has(map_of(info, {{2, 1}, {2, 1}}), "expected original_vocab_size"));
  info.original_vocab_size = 3;
  CHECK(map_of(info, {{2, 1}, {2, 1}}) == "3 1 | 0:0 | 0:1 | 1:0");
  info.original_vocab_size = 2;
  CHECK(map_of(info, {{2, 1}, {2, 1}}) == "2 1 | 0:0 | 0:1");
  info.original_vocab_size = 9;
  CHECK(map_of(info, {{2, 1}, {1, 1}}) == "3 1 | 0:0 | 0:1 | 1:0");
  CHECK(has(map_of(info, {{2}, {2}}), "expected a vocabulary's shape of two sizes, found [4]"));
}

TEST_CASE("tensor-parallel shares of sub-parameters") {
  UniversalInfo info;
  info.version = 0.4;
  SubParameters sub{{3, -1}, {2, 1}, 0, {{1, 1}, {1, 0}}};
  const auto with = [&](const SubParameters& one, std::vector<Shape> shares) {
    info.sub_parameters.clear();
    info.sub_parameters.emplace_back(pattern("w"), one);
    return map_of(info, shares);
  };
  CHECK(with(sub, {{2, 1}, {1, 1}}) == "3 1 | 0:0 | 1:0 | 0:1");
  CHECK(with(sub, {{4}, {2}}) == "3 2 | 0:0 | 0:1 | 1:0 | 1:1 | 0:2 | 0:3");
  CHECK(has(with(sub, {{2, 1}, {2, 1}}), "expected sub-parameters of 4 elements, found"));
  CHECK(has(with(sub, {{1, 1}, {2, 1}}), "expected a share of [2, 1] on rank 0"));
  SubParameters wide{{2, 4}, {2, 2}, 1, {{1, 1}, {1, 1}}};
  CHECK(with(wide, {{2, 2}, {2, 2}}) == "2 4 | 0:0 | 1:0 | 0:1 | 1:1 | 0:2 | 1:2 | 0:3 | 1:3");
  wide.widths[0] = {1, 2};
  CHECK(has(with(wide, {{2, 2}, {2, 2}}), "expected sub_param_shard_widths of its 2"));
  info.version = 0.3;  // which has no widths: all are equal
  CHECK(with({{-1, 2}, {2, 4}, 0, {}}, {{3, 2}, {3, 2}}).starts_with("6 2 | 0:0 | 0:1 | 1:0 |"));
  CHECK(
      has(with({{-1, 2}, {3, 3}, 0, {}}, {{3, 2}, {3, 2}}), "that 2 ranks divide, found one of 3"));
  CHECK(with({{2, -1}, {}, 0, {}}, {{2, 1}, {2, 1}}) == "4 1 | 0:0 | 1:0 | 0:1 | 1:1");
  CHECK(has(with({{3, -1}, {}, 0, {}}, {{2, 1}, {2, 1}}), "of the same size, found 3 in 4"));
}

TEST_CASE("tensor-parallel shares by an affine map") {
  UniversalInfo info;
  // Two columns each, and the last one on both.
  AffineMap map{{2, 3}, {}};
  map.ranks[0] = {{2, 2},
                  {piece({2, 1}, 0, 0, {3, 1}, {2, 1}), piece({2, 1}, 2, 1, {3, 1}, {2, 1})}};
  map.ranks[1] = {{2, 2},
                  {piece({2, 1}, 1, 0, {3, 1}, {2, 1}), piece({2, 1}, 2, 1, {3, 1}, {2, 1})}};
  const auto with = [&](const std::function<void(AffineMap&)>& change) {
    info.affine.clear();
    AffineMap changed = map;
    change(changed);
    info.affine.emplace_back(pattern("w"), std::move(changed));
    return map_of(info, {{2, 2}, {2, 2}});
  };
  const std::vector<Shape> shares{{2, 2}, {2, 2}};
  CHECK(with([](AffineMap&) {}) == "2 3 | 0:0 | 1:0 | 0:1=1:1 | 0:2 | 1:2 | 0:3=1:3");
  const auto first = [](AffineMap& m) -> AffinePiece& { return m.ranks[0].pieces[0]; };
  CHECK(has(with([&](AffineMap& m) { first(m).is_scaled = true; }), "found scaled ones"));
  CHECK(has(with([&](AffineMap& m) { first(m).source_offset = 1; }), "expected chunks that hold"));
  for (const uint64_t offset : {3, 5, 7, 1 << 30}) {
    CHECK(has(with([&](AffineMap& m) { first(m).source_offset = offset; }),
              "expected pieces that are boxes of [2, 3] and of rank 0's share"));
  }
  CHECK(has(with([&](AffineMap& m) { first(m).dest_strides = {1, 2}; }), "that are boxes of"));
  CHECK(has(with([&](AffineMap& m) { first(m).dest_strides = {2}; }), "that are boxes of"));
  CHECK(has(with([&](AffineMap& m) { m.ranks[0].pieces.pop_back(); }),
            "expected pieces of all 4 elements of rank 0's share in its affine map, found 2"));
  CHECK(has(with([&](AffineMap& m) { m.ranks[0].shard_shape = {3}; }),
            "expected a share of [3] on rank 0, as the affine map says, found [2, 2]"));
  CHECK(has(with([&](AffineMap& m) { m.ranks[2] = m.ranks[0]; }), "of 2 ranks, found rank 2"));
  CHECK(has(with([&](AffineMap& m) { m.logical_shape = {UINT64_MAX, 3}; }), "can be counted"));
  CHECK(has(with([&](AffineMap& m) { m.logical_shape = {0, 3}; }), "that are boxes of [0, 3]"));
}
