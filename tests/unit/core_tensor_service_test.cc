// SPDX-License-Identifier: Apache-2.0
#include "core/convert/tensor_service.h"

#include <cstring>
#include <random>
#include <thread>

#include "core/transform/cast.h"
#include "tests/unit/core_fake_plugins.h"

using namespace crossdock;
using namespace crossdock::test;
using convert::TensorDigests;
using convert::TensorService;
using manifest::DType;
using plugin::PlanItem;
using Item = TensorService::Item;

namespace {

constexpr uint64_t kWindow = 4096;
constexpr uint64_t kSeams = 1 << 20;

std::string random_bytes(size_t n, unsigned seed = 1) {
  std::mt19937 random(seed);
  std::string out(n, '\0');
  for (char& c : out) c = static_cast<char>(random());
  return out;
}

PlanItem needing(std::vector<plugin::PlanNeed> needs) { return {0, 0, std::move(needs), 0, 0}; }

xd_range range(uint64_t tensor, uint64_t begin, uint64_t count, DType dtype = DType::UNSPECIFIED) {
  return dense_range(tensor, begin, count, dtype);
}

// The values of a range; or the refusal.
Result<std::string> read(Item& tensors, const xd_range& r, uint64_t n_bytes) {
  std::string out(n_bytes, '-');
  XD_TRY(tensors.read(r, {reinterpret_cast<std::byte*>(out.data()), out.size()}));
  return out;
}

// BF16 bytes as F32 bytes, by the format's definition.
std::string widened(const std::string& bytes) {
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += 2) out += std::string(2, '\0') + bytes.substr(i, 2);
  return out;
}

}  // namespace

TEST_CASE("values are read as they are, or cast") {
  const std::string a = random_bytes(20'000, 1), b = random_bytes(24, 2);
  OpenFake fake(FakeModel().add("a", DType::BF16, {100, 100}, a).add("b", DType::I32, {6}, b));
  TensorDigests digests(fake.model().manifest(), kSeams);
  TensorService service(fake.model(), digests, kWindow);
  const PlanItem item = needing({{0, 0, 10'000}, {1, 0, 6}});
  Item tensors(service, item);
  CHECK(*read(tensors, range(0, 0, 10'000), 20'000) == a);
  CHECK(*read(tensors, range(0, 5, 7, DType::BF16), 14) == a.substr(10, 14));
  CHECK(*read(tensors, range(0, 0, 10'000, DType::F32), 40'000) == widened(a));
  CHECK(*read(tensors, range(0, 9'999, 1, DType::F32), 4) == widened(a.substr(19'998)));
  CHECK(*read(tensors, range(1, 2, 3), 12) == b.substr(8, 12));
  CHECK(*read(tensors, range(0, 10'000, 0), 0) == "");
}

TEST_CASE("pieces in any order and of any size give the same values") {
  const std::string a = random_bytes(20'000);
  OpenFake fake(FakeModel().add("a", DType::BF16, {10'000}, a));
  TensorDigests digests(fake.model().manifest(), kSeams);
  TensorService service(fake.model(), digests, kWindow);
  const PlanItem item = needing({{0, 0, 10'000}});
  Item tensors(service, item);
  const std::string wanted = widened(a);
  std::mt19937 random(2);
  for (int i = 0; i < 300; ++i) {
    const uint64_t begin = random() % 10'000,
                   count = std::min<uint64_t>(random() % 5'000, 10'000 - begin);
    const auto got = read(tensors, range(0, begin, count, DType::F32), 4 * count);
    REQUIRE(got);
    REQUIRE(*got == wanted.substr(4 * begin, 4 * count));
  }
}

TEST_CASE("a cast of small pieces reads the source in whole windows, once") {
  OpenFake fake(FakeModel().add("a", DType::BF16, {10'240}, random_bytes(20'480)));
  TensorDigests digests(fake.model().manifest(), kSeams);
  TensorService service(fake.model(), digests, kWindow);
  const PlanItem item = needing({{0, 0, 10'240}});
  Item tensors(service, item);
  fake.os.reads = 0;
  for (uint64_t at = 0; at < 10'240; at += 80)
    REQUIRE(read(tensors, range(0, at, 80, DType::F32), 320));
  CHECK(fake.os.reads == 5);  // 20480 bytes in windows of 4096
}

TEST_CASE("a window does not reach beyond the item's need") {
  // The reader fails on what lies behind the first 100 elements: the file ends there.
  const std::string a = random_bytes(20'000);
  OpenFake fake(FakeModel().add("a", DType::BF16, {10'000}, a));
  fs::resize_file(fake.dir / "values", 200);
  TensorDigests digests(fake.model().manifest(), kSeams);
  TensorService service(fake.model(), digests, kWindow);
  const PlanItem item = needing({{0, 0, 100}});
  Item tensors(service, item);
  CHECK(*read(tensors, range(0, 0, 10, DType::F32), 40) == widened(a.substr(0, 20)));
}

TEST_CASE("a digest is taken of all that is read, in any order, over the tensor's own values") {
  const std::string a = random_bytes(20'000), b = random_bytes(64);
  OpenFake fake(FakeModel()
                    .add("a", DType::BF16, {10'000}, a)
                    .add("b", DType::F32, {16}, b)
                    .add("none", DType::F32, {0, 4}, ""));
  TensorDigests digests(fake.model().manifest(), kSeams);
  TensorService service(fake.model(), digests, kWindow);
  const PlanItem item = needing({{0, 0, 10'000}, {1, 0, 16}, {2, 0, 0}});
  CHECK(digests[2].text() == tree_digest_of(""));  // of no elements, nothing need be read
  CHECK(digests.texts() == std::vector<std::string>{"", "", digests[2].text()});
  std::optional<Item> scope(std::in_place, service, item);
  Item& tensors = *scope;
  SECTION("as it is") {
    for (uint64_t at = 0; at < 10'000; at += 100) REQUIRE(read(tensors, range(0, at, 100), 200));
    CHECK(digests[0].text() == tree_digest_of(a));
  }
  SECTION("cast: not of what it was cast to") {
    for (uint64_t at = 0; at < 10'000; at += 100)
      REQUIRE(read(tensors, range(0, at, 100, DType::F32), 400));
    CHECK(digests[0].text() == tree_digest_of(a));
  }
  SECTION("several tensors in turn") {
    REQUIRE(read(tensors, range(0, 0, 10'000), 20'000));
    REQUIRE(read(tensors, range(1, 0, 16), 64));
    CHECK(digests[0].text() == tree_digest_of(a));
    CHECK(digests[1].text() == tree_digest_of(b));
  }
  SECTION("a second time from the start after a break") {
    REQUIRE(read(tensors, range(1, 0, 4), 16));
    REQUIRE(read(tensors, range(1, 8, 4), 16));
    CHECK(digests[1].text().empty());
    REQUIRE(read(tensors, range(1, 0, 16), 64));
    CHECK(digests[1].text() == tree_digest_of(b));
  }
  SECTION("not when a piece is missing") {
    REQUIRE(read(tensors, range(1, 8, 8), 32));
    REQUIRE(read(tensors, range(1, 0, 7), 28));
    REQUIRE(read(tensors, range(1, 0, 0), 0));
    scope.reset();
    CHECK(digests[1].text().empty());
  }
  SECTION("backwards, two tensors in turn, cast or not") {
    for (uint64_t at = 10'000; at > 0; at -= 50) {
      const bool casts = at % 100 == 0;
      REQUIRE(read(tensors, range(0, at - 50, 50, casts ? DType::F32 : DType::UNSPECIFIED),
                   casts ? 200 : 100));
      if (at % 2'000 == 0) REQUIRE(read(tensors, range(1, at / 2'000 - 1, 1), 4));
    }
    REQUIRE(read(tensors, range(1, 11, 5), 20));
    REQUIRE(read(tensors, range(1, 5, 6), 24));
    scope.reset();
    CHECK(digests[0].text() == tree_digest_of(a));
    CHECK(digests[1].text() == tree_digest_of(b));
  }
  SECTION("by several items, whose ranges meet anywhere") {
    scope.reset();
    for (const auto& [begin, count] : {std::pair{6'001, 3'999}, std::pair{0, 3'333},
                                       std::pair{3'333, 7}, std::pair{3'340, 2'661}}) {
      CHECK(digests[0].text().empty());
      const PlanItem part =
          needing({{0, static_cast<uint64_t>(begin), static_cast<uint64_t>(count)}});
      Item inside(service, part);
      REQUIRE(read(inside, range(0, begin, count), 2 * count));
    }
    CHECK(digests[0].text() == tree_digest_of(a));
  }
}

TEST_CASE("what no item saw whole is read in the end, and only that") {
  const std::string a = random_bytes(40'000);
  OpenFake fake(
      FakeModel().add("a", DType::BF16, {20'000}, a).add("other", DType::U8, {5}, "abcde"));
  TensorDigests digests(fake.model().manifest(), 0);  // no room for seams
  TensorService service(fake.model(), digests, kWindow);
  for (const uint64_t begin : {0u, 5'000u, 10'000u, 15'000u}) {
    const PlanItem item = needing({{0, begin, 5'000}});
    Item tensors(service, item);
    REQUIRE(read(tensors, range(0, begin, 5'000), 10'000));
  }
  // 10000, 20000 and 30000 lie within the leaves from 8192, 16384 and 28672.
  CHECK(digests[0].missing() ==
        std::vector<io::ByteRange>{{8'192, 12'288}, {16'384, 20'480}, {28'672, 32'768}});
  const std::atomic<bool> never{false}, cancelled{true};
  CHECK(convert::read_missing(fake.model(), 0, digests[0], cancelled).error().code == XD_CANCELLED);
  fake.os.reads = 0;
  const uint64_t done_before = fake.host().done_bytes();
  REQUIRE(convert::read_missing(fake.model(), 0, digests[0], never));
  CHECK(fake.os.reads == 3);
  CHECK(fake.host().done_bytes() - done_before == 3 * 4'096);
  REQUIRE(convert::read_missing(fake.model(), 0, digests[0], never));
  CHECK(fake.os.reads == 3);
  REQUIRE(convert::read_missing(fake.model(), 1, digests[1], never));
  CHECK(digests.texts() == std::vector<std::string>{tree_digest_of(a), tree_digest_of("abcde")});
}

TEST_CASE("an item reads only what its plan says") {
  OpenFake fake(FakeModel()
                    .add("a", DType::F32, {100}, random_bytes(400))
                    .add("b", DType::F32, {4}, random_bytes(16)));
  TensorDigests digests(fake.model().manifest(), kSeams);
  TensorService service(fake.model(), digests, kWindow);
  const PlanItem item = needing({{0, 10, 20}, {0, 50, 10}});
  Item tensors(service, item);
  CHECK(read(tensors, range(0, 10, 20), 80).has_value());
  CHECK(read(tensors, range(0, 55, 5), 20).has_value());
  for (const xd_range& r : {range(0, 9, 1), range(0, 10, 21), range(0, 29, 2), range(0, 20, 40),
                            range(1, 0, 4), range(0, 10, UINT64_MAX)}) {
    const auto refused = read(tensors, r, 4 * std::min<uint64_t>(r.count, 50));
    CHECK(contains(message(refused),
                   "expected a read of what the item's plan needs, found elements"));
    CHECK(refused.error().code == XD_OUT_OF_RANGE);
  }
  CHECK(message(read(tensors, range(2, 0, 4), 16)) == "expected a tensor below 2, found 2");
}

TEST_CASE("a wrong buffer or cast is refused with the tensor's name") {
  OpenFake fake(FakeModel()
                    .add("a", DType::F32, {100}, random_bytes(400))
                    .add("i", DType::I64, {4}, random_bytes(32)));
  TensorDigests digests(fake.model().manifest(), kSeams);
  TensorService service(fake.model(), digests, kWindow);
  const PlanItem item = needing({{0, 0, 100}, {1, 0, 4}});
  Item tensors(service, item);
  CHECK(message(read(tensors, range(0, 0, 10), 39)) ==
        "tensor \"a\": expected a buffer for elements 0 + 10, found 39 bytes");
  CHECK(message(read(tensors, range(0, 0, 10, DType::BF16), 40)) ==
        "tensor \"a\": expected a buffer for elements 0 + 10, found 40 bytes");
  CHECK(message(read(tensors, range(1, 0, 4, DType::F32), 16)) ==
        "tensor \"i\": expected a type that casts to F32, found I64");
  CHECK(message(read(tensors, range(0, 0, 4, static_cast<DType>(77)), 0)).find("tensor \"a\": ") ==
        0);
}

TEST_CASE("an item that has not read all that it needs is told what it left") {
  OpenFake fake(FakeModel()
                    .add("a", DType::F32, {100}, random_bytes(400))
                    .add("b", DType::F32, {4}, random_bytes(16)));
  TensorDigests digests(fake.model().manifest(), kSeams);
  TensorService service(fake.model(), digests, kWindow);
  const PlanItem item = needing({{0, 10, 20}, {1, 0, 4}, {0, 50, 10}, {1, 4, 0}});
  Item tensors(service, item);
  REQUIRE(read(tensors, range(1, 0, 4), 16));
  REQUIRE(read(tensors, range(0, 50, 10), 40));
  CHECK(contains(message(tensors.check_whole()), "up to element 30, found none read from 10"));
  REQUIRE(read(tensors, range(0, 20, 10), 40));
  REQUIRE(read(tensors, range(0, 10, 5), 20));
  CHECK(contains(message(tensors.check_whole()), "tensor \"a\" to be read that the item's plan"));
  CHECK(contains(message(tensors.check_whole()), "found none read from 15"));
  REQUIRE(read(tensors, range(0, 12, 9), 36));  // again, and what was left
  CHECK(tensors.check_whole());
}

TEST_CASE("a plugin's own threads may read one item's tensors") {
  const std::string a = random_bytes(20'000);
  OpenFake fake(FakeModel().add("a", DType::BF16, {10'000}, a));
  TensorDigests digests(fake.model().manifest(), kSeams);
  TensorService service(fake.model(), digests, kWindow);
  const PlanItem item = needing({{0, 0, 10'000}});
  {
    Item tensors(service, item);
    std::atomic<int> wrong{0};
    std::vector<std::thread> threads;
    for (uint64_t t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        for (uint64_t at = 2'500 * t; at < 2'500 * (t + 1); at += 100) {
          const auto got = read(tensors, range(0, at, 100, DType::F32), 400);
          wrong += !got || *got != widened(a.substr(2 * at, 200));
        }
      });
    }
    for (auto& t : threads) t.join();
    CHECK(wrong == 0);
    CHECK(tensors.check_whole());
  }
  CHECK(digests[0].text() == tree_digest_of(a));
}

TEST_CASE(
    "a source that ends early is an error with the tensor's name, and nothing stale is read after "
    "it") {
  const std::string a = random_bytes(20'000);
  OpenFake fake(FakeModel().add("a", DType::BF16, {10'000}, a));
  TensorDigests digests(fake.model().manifest(), kSeams);
  TensorService service(fake.model(), digests, kWindow);
  const PlanItem item = needing({{0, 0, 10'000}});
  Item tensors(service, item);
  REQUIRE(read(tensors, range(0, 0, 10, DType::F32), 40));
  fs::resize_file(fake.dir / "values", 10'000);
  const auto failed = read(tensors, range(0, 6'000, 10, DType::F32), 40);
  CHECK(
      contains(message(failed),
               "tensor \"a\": values: expected 4096 bytes at offset 12000, found the file's end"));
  CHECK(failed.error().code == XD_CORRUPT);
  put(fake.dir / "values", a);
  CHECK(*read(tensors, range(0, 6'000, 10, DType::F32), 40) == widened(a.substr(12'000, 20)));
}

TEST_CASE("a window is charged to the budget and given back") {
  OpenFake fake(FakeModel().add("a", DType::BF16, {100}, random_bytes(200)), kWindow);
  TensorDigests digests(fake.model().manifest(), kSeams);
  TensorService service(fake.model(), digests, kWindow);
  const PlanItem item = needing({{0, 0, 100}});
  {
    const base::Block all(fake.host().memory(), kWindow);
    Item tensors(service, item);
    CHECK(message(read(tensors, range(0, 0, 1, DType::F32), 4)) ==
          "tensor \"a\": expected 4096 bytes within the memory budget: raise --memory");
    CHECK(read(tensors, range(0, 0, 1), 2).has_value());  // no cast, no window
  }
  {
    Item tensors(service, item);
    CHECK(read(tensors, range(0, 0, 1, DType::F32), 4).has_value());
  }
  CHECK(base::Block(fake.host().memory(), kWindow).data);
}

TEST_CASE("threads read their own items at the same time") {
  constexpr uint64_t kTensors = 16, kCount = 6'000;
  FakeModel made;
  std::vector<std::string> values;
  for (unsigned i = 0; i < kTensors; ++i) {
    values.push_back(random_bytes(2 * kCount, i));
    made.add(cat("t", i), DType::BF16, {kCount}, values.back());
  }
  OpenFake fake(made);
  TensorDigests digests(fake.model().manifest(), kSeams);
  TensorService service(fake.model(), digests, kWindow);
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (uint64_t i = t; i < kTensors; i += 4) {
        const PlanItem item = needing({{i, 0, kCount}});
        Item tensors(service, item);
        for (uint64_t at = 0; at < kCount; at += 500) {
          const auto got = read(tensors, range(i, at, 500, DType::F32), 2'000);
          wrong += !got || *got != widened(values[i].substr(2 * at, 1'000));
        }
      }
    });
  }
  for (auto& t : threads) t.join();
  CHECK(wrong == 0);
  for (uint64_t i = 0; i < kTensors; ++i) CHECK(digests[i].text() == tree_digest_of(values[i]));
}
