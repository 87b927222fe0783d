// SPDX-License-Identifier: Apache-2.0

// The C99 writer of examples/npz_writer_c99 against the host in memory, which counts what it
// allocates, reads and writes. numpy judges the files: tests/interop/test_example_plugins.py.
#include <crossdock/testing/memory_host.h>
#include "tests/catch.h"

using namespace crossdock;
using manifest::DType;
using test::MemoryHost;

namespace {

struct Tensor {
  const char* name;
  DType dtype;
  std::vector<uint64_t> shape;
};

manifest::Manifest model() {
  manifest::Manifest m;
  for (const auto& [name, dtype, shape] :
       {Tensor{"large", DType::F32, {300, 200}}, Tensor{"not wanted", DType::F32, {3}},
        Tensor{"scalar", DType::I64, {}}, Tensor{"fp8", DType::F8_E4M3, {7}},
        Tensor{"bf16", DType::BF16, {5}}, Tensor{"none", DType::U8, {0, 5}}}) {
    manifest::Tensor& t = m.tensors.emplace_back();
    t.name = name;
    t.dtype = dtype;
    t.shape = shape;
  }
  m.tensors[1].excluded = "for the test";
  m.aux_files.resize(1);
  m.aux_files[0].name = "config.json";
  m.aux_files[0].content = manifest::Bytes{"{}"};
  return m;
}

// Values that deflate leaves some of.
void set_model(MemoryHost& host) {
  host.tensor_bytes = [](uint64_t tensor, uint64_t first, std::span<std::byte> out) {
    for (uint64_t i = 0; i < out.size(); ++i) {
      const uint64_t x = (first + i + tensor) * 0x9e3779b97f4a7c15;
      out[i] = static_cast<std::byte>((x ^ x >> 29) * 0xbf58476d1ce4e5b9 >> 60);
    }
  };
}

const test::OptionValues kBits{{"npz-bf16", "uint16"}};  // so that nothing is cast

Result<test::Files> write(MemoryHost& host) {
  set_model(host);
  return test::run_writer(host, test::linked_plugin(host), model(), kBits);
}

}  // namespace

TEST_CASE("npz writer: the same bytes whatever the pieces and threads") {
  MemoryHost host;
  const auto first = write(host);
  REQUIRE(first);
  CHECK(first->at("config.json") == "{}");
  const uint64_t size = first->at("model.npz").size();
  CHECK(size > 50'000);  // several pieces
  CHECK(size < 200'000);
  REQUIRE(host.plan.excluded.size() == 1);
  CHECK(host.plan.excluded[0].first == 3);
  REQUIRE(host.plan.notes.size() == 1);
  CHECK(host.plan.objects[0]->size > size);
  CHECK(host.plan.objects[0]->flags == (XD_OBJECT_SIZE_AT_SEAL | XD_OBJECT_IN_ORDER));
  // What the bar shows: all of what the plan promised, whatever deflate saved.
  uint64_t promised = 98;
  for (const test::PlanItem& item : host.plan.objects[0]->items) promised += item.out_bytes;
  for (const std::string name : {"large", "scalar", "bf16", "none"})
    promised += 74 + 4 + name.size();
  CHECK(host.progress_bytes == promised);
  for (const uint64_t piece : {8u, 1u << 20}) {
    MemoryHost other;
    other.piece = piece;
    other.threads = 4;
    const auto again = write(other);
    REQUIRE(again);
    CHECK(*again == *first);
  }
}

TEST_CASE("npz writer: a plan is the same each time") {
  MemoryHost a, b;
  REQUIRE(test::run_plan(a, test::linked_plugin(a), model(), kBits));
  REQUIRE(test::run_plan(b, test::linked_plugin(b), model(), kBits));
  REQUIRE(a.plan.objects.size() == 1);
  CHECK(a.plan.objects[0]->size == b.plan.objects[0]->size);
  CHECK(a.plan.objects[0]->items.size() == 4);
}

TEST_CASE("npz writer: whatever fails, nothing is kept and the reason is told") {
  uint64_t n_failed = 0;
  for (uint64_t n = 1;; ++n) {
    MemoryHost host;
    host.fail_at = n;
    const auto written = write(host);
    if (host.calls < n) break;
    INFO(n);
    REQUIRE_FALSE(written.has_value());
    INFO(written.error().message);
    CHECK((written.error().code == XD_IO || written.error().code == XD_NO_MEMORY));
    CHECK(written.error().message.find("leak") == std::string::npos);
    ++n_failed;
  }
  CHECK(n_failed > 40);
}

TEST_CASE("npz writer: it stops when it is asked to") {
  MemoryHost host;
  host.cancel = true;
  const auto written = write(host);
  REQUIRE_FALSE(written.has_value());
  CHECK(written.error().code == XD_CANCELLED);
}

TEST_CASE("npz writer: names and shapes that the format cannot hold") {
  const auto refusal = [](const std::string& name, size_t rank) {
    MemoryHost host;
    auto m = model();
    m.tensors[0].name = name;
    m.tensors[0].shape.assign(rank, 1);
    const auto planned = test::run_plan(host, test::linked_plugin(host), m, kBits);
    return planned ? "none" : planned.error().message;
  };
  CHECK(refusal(std::string(65531, 'n'), 32) == "none");
  CHECK(refusal(std::string(65532, 'n'), 1).find("a name of 1 to 65531 bytes") !=
        std::string::npos);
  CHECK(refusal("w", 33) == "w: expected at most 32 dimensions, found more");
}
