#include "core/convert/tensor_service.h"

#include <cstring>
#include <random>
#include <thread>

#include "core/transform/cast.h"
#include "tests/unit/core_fake_plugins.h"

using namespace crossdock;
using namespace crossdock::test;
using convert::TensorService;
using manifest::DType;
using plugin::PlanItem;
using Scope = TensorService::ItemScope;

namespace {

constexpr uint64_t kWindow = 4096;

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
Result<std::string> read(TensorService& service, const xd_range& r, uint64_t n_bytes) {
  std::string out(n_bytes, '-');
  XD_TRY(service.read(r, {reinterpret_cast<std::byte*>(out.data()), out.size()}));
  return out;
}

std::string digest_of(const std::string& bytes) {
  io::Digest digest;
  digest.update(as_bytes(bytes));
  return digest.finish();
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
  TensorService service(fake.model(), kWindow);
  const PlanItem item = needing({{0, 0, 10'000}, {1, 0, 6}});
  const Scope scope(service, item);
  CHECK(*read(service, range(0, 0, 10'000), 20'000) == a);
  CHECK(*read(service, range(0, 5, 7, DType::BF16), 14) == a.substr(10, 14));
  CHECK(*read(service, range(0, 0, 10'000, DType::F32), 40'000) == widened(a));
  CHECK(*read(service, range(0, 9'999, 1, DType::F32), 4) == widened(a.substr(19'998)));
  CHECK(*read(service, range(1, 2, 3), 12) == b.substr(8, 12));
  CHECK(*read(service, range(0, 10'000, 0), 0) == "");
}

TEST_CASE("pieces in any order and of any size give the same values") {
  const std::string a = random_bytes(20'000);
  OpenFake fake(FakeModel().add("a", DType::BF16, {10'000}, a));
  TensorService service(fake.model(), kWindow);
  const PlanItem item = needing({{0, 0, 10'000}});
  const Scope scope(service, item);
  const std::string wanted = widened(a);
  std::mt19937 random(2);
  for (int i = 0; i < 300; ++i) {
    const uint64_t begin = random() % 10'000,
                   count = std::min<uint64_t>(random() % 5'000, 10'000 - begin);
    const auto got = read(service, range(0, begin, count, DType::F32), 4 * count);
    REQUIRE(got);
    REQUIRE(*got == wanted.substr(4 * begin, 4 * count));
  }
}

TEST_CASE("a cast of small pieces reads the source in whole windows, once") {
  OpenFake fake(FakeModel().add("a", DType::BF16, {10'240}, random_bytes(20'480)));
  TensorService service(fake.model(), kWindow);
  const PlanItem item = needing({{0, 0, 10'240}});
  const Scope scope(service, item);
  fake.os.reads = 0;
  for (uint64_t at = 0; at < 10'240; at += 80)
    REQUIRE(read(service, range(0, at, 80, DType::F32), 320));
  CHECK(fake.os.reads == 5);  // 20480 bytes in windows of 4096
}

TEST_CASE("a window does not reach beyond the item's need") {
  // The reader fails on what lies behind the first 100 elements: the file ends there.
  const std::string a = random_bytes(20'000);
  OpenFake fake(FakeModel().add("a", DType::BF16, {10'000}, a));
  fs::resize_file(fake.dir / "values", 200);
  TensorService service(fake.model(), kWindow);
  const PlanItem item = needing({{0, 0, 100}});
  const Scope scope(service, item);
  CHECK(*read(service, range(0, 0, 10, DType::F32), 40) == widened(a.substr(0, 20)));
}

TEST_CASE("a digest is taken of a tensor that is read whole and in order, over its own values") {
  const std::string a = random_bytes(20'000), b = random_bytes(64);
  OpenFake fake(FakeModel()
                    .add("a", DType::BF16, {10'000}, a)
                    .add("b", DType::F32, {16}, b)
                    .add("none", DType::F32, {0, 4}, ""));
  TensorService service(fake.model(), kWindow);
  const PlanItem item = needing({{0, 0, 10'000}, {1, 0, 16}, {2, 0, 0}});
  const Scope scope(service, item);
  CHECK(service.digest_of(0).empty());
  SECTION("as it is") {
    for (uint64_t at = 0; at < 10'000; at += 100) REQUIRE(read(service, range(0, at, 100), 200));
    CHECK(service.digest_of(0) == digest_of(a));
  }
  SECTION("cast: not of what it was cast to") {
    for (uint64_t at = 0; at < 10'000; at += 100)
      REQUIRE(read(service, range(0, at, 100, DType::F32), 400));
    CHECK(service.digest_of(0) == digest_of(a));
  }
  SECTION("several tensors in turn") {
    REQUIRE(read(service, range(0, 0, 10'000), 20'000));
    REQUIRE(read(service, range(1, 0, 16), 64));
    CHECK(service.digest_of(0) == digest_of(a));
    CHECK(service.digest_of(1) == digest_of(b));
  }
  SECTION("a second time from the start after a break") {
    REQUIRE(read(service, range(1, 0, 4), 16));
    REQUIRE(read(service, range(1, 8, 4), 16));
    CHECK(service.digest_of(1).empty());
    REQUIRE(read(service, range(1, 0, 16), 64));
    CHECK(service.digest_of(1) == digest_of(b));
  }
  SECTION("not when a piece is missing or out of order") {
    REQUIRE(read(service, range(1, 8, 8), 32));
    REQUIRE(read(service, range(1, 0, 8), 32));
    CHECK(service.digest_of(1).empty());
  }
  SECTION("no elements are read by a read of none") {
    REQUIRE(read(service, range(2, 0, 0), 0));
    CHECK(service.digest_of(2) == digest_of(""));
  }
}

TEST_CASE("a read of nothing at the start does not make a digest of a tensor that has elements") {
  OpenFake fake(FakeModel().add("b", DType::F32, {16}, random_bytes(64)));
  TensorService service(fake.model(), kWindow);
  const PlanItem item = needing({{0, 0, 16}});
  const Scope scope(service, item);
  REQUIRE(read(service, range(0, 0, 0), 0));
  CHECK(service.digest_of(0).empty());
}

TEST_CASE("an item reads only what its plan says") {
  OpenFake fake(FakeModel()
                    .add("a", DType::F32, {100}, random_bytes(400))
                    .add("b", DType::F32, {4}, random_bytes(16)));
  TensorService service(fake.model(), kWindow);
  const PlanItem item = needing({{0, 10, 20}, {0, 50, 10}});
  const Scope scope(service, item);
  CHECK(read(service, range(0, 10, 20), 80).has_value());
  CHECK(read(service, range(0, 55, 5), 20).has_value());
  for (const xd_range& r : {range(0, 9, 1), range(0, 10, 21), range(0, 29, 2), range(0, 20, 40),
                            range(1, 0, 4), range(0, 10, UINT64_MAX)}) {
    const auto refused = read(service, r, 4 * std::min<uint64_t>(r.count, 50));
    CHECK(contains(message(refused),
                   "expected a read of what the item's plan needs, found elements"));
    CHECK(refused.error().code == XD_OUT_OF_RANGE);
  }
  CHECK(message(read(service, range(2, 0, 4), 16)) == "expected a tensor below 2, found 2");
}

TEST_CASE("a wrong buffer, form or cast is refused with the tensor's name") {
  OpenFake fake(FakeModel()
                    .add("a", DType::F32, {100}, random_bytes(400))
                    .add("i", DType::I64, {4}, random_bytes(32)));
  TensorService service(fake.model(), kWindow);
  const PlanItem item = needing({{0, 0, 100}, {1, 0, 4}});
  const Scope scope(service, item);
  CHECK(message(read(service, range(0, 0, 10), 39)) ==
        "tensor \"a\": expected a buffer for elements 0 + 10, found 39 bytes");
  CHECK(message(read(service, range(0, 0, 10, DType::BF16), 40)) ==
        "tensor \"a\": expected a buffer for elements 0 + 10, found 40 bytes");
  xd_range stored = range(0, 0, 10);
  stored.form = XD_FORM_STORED;
  CHECK(message(read(service, stored, 10)) == "tensor \"a\": only dense values can be read");
  CHECK(message(read(service, range(1, 0, 4, DType::F32), 16)) ==
        "tensor \"i\": expected a type that casts to F32, found I64");
  CHECK(message(read(service, range(0, 0, 4, static_cast<DType>(77)), 0)).find("tensor \"a\": ") ==
        0);
}

TEST_CASE("tensors are read inside an item only") {
  OpenFake fake(FakeModel().add("a", DType::F32, {4}, random_bytes(16)));
  TensorService service(fake.model(), kWindow), other(fake.model(), kWindow);
  CHECK(message(read(service, range(0, 0, 4), 16)) == "tensors are read in write_item only");
  const PlanItem item = needing({{0, 0, 4}});
  {
    const Scope scope(service, item);
    CHECK(read(service, range(0, 0, 4), 16).has_value());
    CHECK(message(read(other, range(0, 0, 4), 16)) == "tensors are read in write_item only");
  }
  CHECK(message(read(service, range(0, 0, 4), 16)) == "tensors are read in write_item only");
}

TEST_CASE(
    "a source that ends early is an error with the tensor's name, and nothing stale is read after "
    "it") {
  const std::string a = random_bytes(20'000);
  OpenFake fake(FakeModel().add("a", DType::BF16, {10'000}, a));
  TensorService service(fake.model(), kWindow);
  const PlanItem item = needing({{0, 0, 10'000}});
  const Scope scope(service, item);
  REQUIRE(read(service, range(0, 0, 10, DType::F32), 40));
  fs::resize_file(fake.dir / "values", 10'000);
  const auto failed = read(service, range(0, 6'000, 10, DType::F32), 40);
  CHECK(
      contains(message(failed),
               "tensor \"a\": values: expected 4096 bytes at offset 12000, found the file's end"));
  CHECK(failed.error().code == XD_CORRUPT);
  put(fake.dir / "values", a);
  CHECK(*read(service, range(0, 6'000, 10, DType::F32), 40) == widened(a.substr(12'000, 20)));
}

TEST_CASE("a window is charged to the budget and given back") {
  OpenFake fake(FakeModel().add("a", DType::BF16, {100}, random_bytes(200)), kWindow);
  TensorService service(fake.model(), kWindow);
  const PlanItem item = needing({{0, 0, 100}});
  {
    const base::Block all(fake.host().memory(), kWindow);
    const Scope scope(service, item);
    CHECK(message(read(service, range(0, 0, 1, DType::F32), 4)) ==
          "tensor \"a\": expected 4096 bytes within the memory budget: raise --memory");
    CHECK(read(service, range(0, 0, 1), 2).has_value());  // no cast, no window
  }
  {
    const Scope scope(service, item);
    CHECK(read(service, range(0, 0, 1, DType::F32), 4).has_value());
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
  TensorService service(fake.model(), kWindow);
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (uint64_t i = t; i < kTensors; i += 4) {
        const PlanItem item = needing({{i, 0, kCount}});
        const Scope scope(service, item);
        for (uint64_t at = 0; at < kCount; at += 500) {
          const auto got = read(service, range(i, at, 500, DType::F32), 2'000);
          wrong += !got || *got != widened(values[i].substr(2 * at, 1'000));
        }
      }
    });
  }
  for (auto& t : threads) t.join();
  CHECK(wrong == 0);
  for (uint64_t i = 0; i < kTensors; ++i) CHECK(service.digest_of(i) == digest_of(values[i]));
}

TEST_CASE("a reader without views says so, and the item's limits hold for views too") {
  OpenFake fake(FakeModel().add("a", DType::F32, {4}, random_bytes(16)));
  TensorService service(fake.model(), kWindow);
  const PlanItem item = needing({{0, 0, 2}});
  const Scope scope(service, item);
  xd_view view{XD_INIT_SIZE(xd_view), 0, nullptr, 0, nullptr, nullptr};
  CHECK(service.view(range(0, 0, 2), &view, nullptr) == XD_UNIMPLEMENTED);
  CHECK(service.view(range(0, 0, 2, DType::BF16), &view, nullptr) == XD_UNIMPLEMENTED);
  CHECK(service.view(range(0, 0, 3), &view, nullptr) == XD_OUT_OF_RANGE);
  CHECK(service.view(range(7, 0, 3), &view, nullptr) == XD_OUT_OF_RANGE);
}
