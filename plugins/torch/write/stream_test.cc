// SPDX-License-Identifier: Apache-2.0

// Contents that are cut into items of every size: the file is the same, whoever wrote which item
// when.
#include "plugins/torch/write/stream.h"

#include <algorithm>
#include <numeric>
#include <random>

#include <crossdock/testing/memory_host.h>
#include "plugins/torch/write/results.h"
#include "plugins/torch/write/unzip_for_test.h"
#include "tests/catch.h"

using namespace crossdock;
using namespace crossdock::torch_write;
using manifest::DType;
using From = StorageSource::From;

namespace {

// Tensors of 10, 1, 0 and 3000 elements of BF16, and 500 of I64. Values are their places.
constexpr uint64_t kSizes[] = {10, 1, 0, 3000, 500};

std::unique_ptr<test::MemoryHost> make_host() {
  auto host = std::make_unique<test::MemoryHost>();
  for (size_t i = 0; i < std::size(kSizes); ++i) {
    manifest::Tensor& t = host->manifest.tensors.emplace_back();
    t.name = cat("t", i);
    t.dtype = i == 4 ? DType::I64 : DType::BF16;
    t.shape = {kSizes[i]};
  }
  host->tensor_bytes = [](uint64_t tensor, uint64_t first, std::span<std::byte> out) {
    for (size_t i = 0; i < out.size(); ++i)
      out[i] = static_cast<std::byte>(((first + i) * 37 + tensor) % 113);
  };
  return host;
}

Segment all_of(uint64_t tensor, uint64_t pad = 0) { return {tensor, 0, kSizes[tensor], pad, true}; }

// What both writers have: many segments in a storage, with pads; storages of one tensor; none;
// zeros, written and holes, small and large.
Content make_content() {
  const uint64_t flat = 4 * (10 + 3 + 1 + 3000 + 5 + 10);
  return {"pickle",
          {{From::kTensors,
            flat,
            DType::F32,
            {all_of(0, 3), all_of(1), all_of(2), all_of(3, 5), all_of(0)}},
           {From::kZeros, 0, DType::F32, {}},
           {From::kZeros, 4, DType::F32, {}},
           {From::kWrittenZeros, 9001, DType::U8, {}},
           {From::kTensors, 0, DType::F32, {{2, 0, 0, 0, true}}},
           {From::kTensors, 4000, DType::I64, {{4, 0, 500, 0, false}}},
           {From::kZeros, 100'000, DType::F32, {}},
           {From::kTensors, 4, DType::F32, {{1, 0, 1, 0, true}}}}};
}

struct Written {
  std::string bytes;
  size_t n_items = 0;
};

// In this order of items, or in order where it is empty. Throws what went wrong.
Written write(const Content& content, uint64_t max_bytes, std::vector<size_t> order = {},
              uint64_t piece = 4 << 20) {
  const auto host = make_host();
  host->piece = piece;
  const Host api = host->api();
  const auto expect = [&](bool holds, const std::string& what) {
    if (!holds) throw std::runtime_error(what);
  };
  const auto expect_done = [&](const auto& result) {
    expect(bool(result), result ? "" : host->text(result.error()));
  };
  Plan plan(api, reinterpret_cast<xd_plan*>(&host->plan));
  const auto object = plan.object("f", content.file.size());
  expect_done(object);
  expect_done(plan_items(plan, *object, content, max_bytes));
  test::PlanObject& planned = *host->plan.objects[0];
  Object out(api, reinterpret_cast<xd_object*>(&planned));
  const std::vector<Item> items = cut(content, max_bytes);
  expect(items.size() == planned.items.size(), "one planned item for each");

  std::vector<std::string> results(items.size());
  if (order.empty()) {
    order.resize(items.size());
    std::iota(order.begin(), order.end(), size_t{0});
  }
  for (const size_t i : order) {
    test::MemoryHost::Call call(*host, &planned.items[i]);
    const Host of_item = call.api();
    Object staged(of_item, reinterpret_cast<xd_object*>(&planned));
    auto result = write_item(of_item, content, items[i], staged);
    expect_done(result);
    expect_done(call.check_memory("f", i));
    results[i] = *std::move(result);
  }
  const std::vector<std::string_view> views(results.begin(), results.end());
  expect_done(seal(api, content, out, views));
  expect(planned.complete(), "every byte");
  return {planned.data, items.size()};
}

uint64_t bytes_of(const Item& item) {
  uint64_t sum = 0;
  for (const Part& part : item.parts) sum += part.end - part.begin;
  return sum;
}

Content of_floats(std::vector<uint64_t> counts) {
  std::vector<StorageSource> storages;
  for (const uint64_t n : counts)
    storages.push_back({From::kTensors, 4 * n, DType::F32, {{0, 0, n, 0, true}}});
  return {"p", std::move(storages)};
}

// "storage[begin,end) ..." of each item.
std::string text_of(const std::vector<Item>& items) {
  std::string out;
  for (const Item& item : items) {
    out += out.empty() ? "" : " | ";
    for (const Part& part : item.parts)
      out += cat(&part == &item.parts[0] ? "" : " ", part.storage, "[", part.begin, ",", part.end,
                 ")");
  }
  return out;
}

}  // namespace

TEST_CASE("items end between storages, and inside of those that are larger than an item") {
  CHECK(text_of(cut(of_floats({5, 5, 5}), 40)) == "0[0,20) 1[0,20) | 2[0,20)");
  CHECK(text_of(cut(of_floats({5, 6, 5}), 40)) == "0[0,20) | 1[0,24) | 2[0,20)");
  CHECK(text_of(cut(of_floats({1, 25, 1, 10}), 40)) ==
        "0[0,4) | 1[0,40) | 1[40,80) | 1[80,100) 2[0,4) | 3[0,40)");
  CHECK(text_of(cut(of_floats({0, 0}), 40)) == "0[0,0) 1[0,0)");
  CHECK(text_of(cut(of_floats({}), 40)).empty());
  CHECK(cut(of_floats({}), 40).size() == 1);
  CHECK(text_of(cut(of_floats({3}), 1)) == "0[0,4) | 0[4,8) | 0[8,12)");  // one element at least
}

TEST_CASE("items end between segments of one storage, and their pads count") {
  const Content content{
      "p",
      {{From::kTensors, 4 * 29, DType::F32, {all_of(0, 2), {3, 7, 12, 3, true}, all_of(1, 1)}}}};
  const auto items = cut(content, 48);
  CHECK(text_of(items) == "0[0,48) | 0[48,96) | 0[96,116)");
  const auto segments = [](const Item& item) {
    std::string out;
    for (const Segment& s : item.parts[0].segments)
      out += cat(out.empty() ? "" : " ", s.tensor, ":", s.begin, "+", s.count, "+", s.pad);
    return out;
  };
  CHECK(segments(items[0]) == "0:0+10+2");
  CHECK(segments(items[1]) == "3:7+12+0");
  CHECK(segments(items[2]) == "3:19+0+3 1:0+1+1");
}

TEST_CASE("holes are never cut, and cost an item nothing") {
  const Content content{"p",
                        {{From::kTensors, 40, DType::F32, {all_of(0)}},
                         {From::kZeros, uint64_t{1} << 50, DType::F32, {}},
                         {From::kZeros, uint64_t{1} << 50, DType::F32, {}}}};
  CHECK(cut(content, 40).size() == 1);
}

TEST_CASE("a file is the same in one item, in many, and in any order of them") {
  const Content content = make_content();
  const Written one = write(content, kMaxItemBytes);
  CHECK(one.n_items == 1);
  CHECK(read_zip(one.bytes).size() == 4 + content.storages.size() + 2);  // and its CRCs fit
  std::mt19937 random(1);
  for (const uint64_t max_bytes : {1, 4, 16, 44, 60, 1000, 4000, 4096, 12000, 30000}) {
    CAPTURE(max_bytes);
    const auto items = cut(content, max_bytes);
    for (const Item& item : items) {
      if (max_bytes >= 8) CHECK(bytes_of(item) <= max_bytes + 100'000);  // the hole
    }
    std::vector<size_t> order(items.size());
    std::iota(order.begin(), order.end(), size_t{0});
    CHECK(write(content, max_bytes).bytes == one.bytes);
    std::reverse(order.begin(), order.end());
    CHECK(write(content, max_bytes, order).bytes == one.bytes);
    std::shuffle(order.begin(), order.end(), random);
    CHECK(write(content, max_bytes, order, 16).bytes == one.bytes);
  }
}

TEST_CASE("what items declare to write is all but the tail and the holes") {
  const Content content = make_content();
  for (const uint64_t max_bytes : {uint64_t{16}, uint64_t{1000}, kMaxItemBytes}) {
    const auto host = make_host();
    const Host api = host->api();
    Plan plan(api, reinterpret_cast<xd_plan*>(&host->plan));
    const auto object = plan.object("f", content.file.size());
    REQUIRE(object);
    REQUIRE(plan_items(plan, *object, content, max_bytes));
    uint64_t sum = 0;
    for (const test::PlanItem& item : host->plan.objects[0]->items) sum += item.out_bytes;
    CHECK(sum == content.file.tail_offset() - 100'000);
  }
}

TEST_CASE("every value beyond fp16 is counted once, however it is cut") {
  auto host = make_host();
  host->tensor_bytes = [](uint64_t, uint64_t first, std::span<std::byte> out) {
    const uint16_t one = 0x3f80, beyond = 0x4780, infinity = 0x7f80;  // 1, 65536 and infinity
    for (size_t i = 0; i < out.size(); i += 2) {
      const uint64_t element = (first + i) / 2;
      const uint16_t value = element % 10 == 3 ? beyond : element % 10 == 4 ? infinity : one;
      std::memcpy(&out[i], &value, 2);
    }
  };
  const Content content{
      "p",
      {{From::kTensors, 4 * 3000, DType::F32, {all_of(3)}, true},
       {From::kTensors, 4 * 10, DType::F32, {all_of(0)}}}};  // of one that does not count
  for (const uint64_t max_bytes : {uint64_t{4}, uint64_t{1000}, kMaxItemBytes}) {
    const Host api = host->api();
    host->plan = {};
    Plan plan(api, reinterpret_cast<xd_plan*>(&host->plan));
    REQUIRE(plan.object("f", content.file.size()));
    REQUIRE(plan_items(plan, 0, content, max_bytes));
    Object out(api, reinterpret_cast<xd_object*>(host->plan.objects[0].get()));
    const auto items = cut(content, max_bytes);
    uint64_t n = 0;
    for (size_t i = 0; i < items.size(); ++i) {
      test::MemoryHost::Call call(*host, &host->plan.objects[0]->items[i]);
      const Host of_item = call.api();
      Object staged(of_item, reinterpret_cast<xd_object*>(host->plan.objects[0].get()));
      const auto result = write_item(of_item, content, items[i], staged);
      REQUIRE(result);
      n += ItemResult::decode(*result)->n_beyond_fp16;
    }
    CHECK(n == 300);
  }
}

TEST_CASE("seal refuses results that are not those of the content's items") {
  const Content content = of_floats({4, 4});
  const auto host = make_host();
  const Host api = host->api();
  test::PlanObject planned;
  planned.size = content.file.size();
  Object out(api, reinterpret_cast<xd_object*>(&planned));
  const std::string one = ItemResult{0, {{0, 0, 16, 0}}}.encode();
  for (const std::vector<std::string_view>& results :
       {std::vector<std::string_view>{}, {one}, {one, one}, {"x"}, {""}}) {
    const auto sealed = seal(api, content, out, results);
    REQUIRE_FALSE(sealed);
    CHECK(sealed.error().code == XD_INTERNAL);
  }
}
