// SPDX-License-Identifier: Apache-2.0
#include "core/convert/source_proof.h"

#include "tests/unit/core_fake_plugins.h"

using namespace crossdock;
using namespace crossdock::test;
using convert::TensorSource;
using io::ByteRange;
using manifest::DType;
using transform::Expression;
using transform::View;

namespace {

// Header "....", a of 24 bytes, b of 24 bytes with 4 in front, c of 6 codes, and 5 bytes behind.
FakeModel small_model() {
  FakeModel out;
  out.values = "head";
  out.add("a", DType::F32, {2, 3}, std::string(24, 'a'));
  out.values += "gap!";
  out.add("b", DType::F32, {2, 3}, std::string(24, 'b'));
  out.add("c", DType::U8, {6}, "cccccc");
  out.values += "rest.";
  out.manifest.source.files[0].size = out.values.size();
  return out;
}

std::vector<ByteRange> unproved(OpenFake& fake, std::vector<Expression> made) {
  const auto stored = fake.model().manifest().tensors;
  manifest::Manifest m = fake.model().manifest();
  m.tensors.clear();
  for (const Expression& e : made) {
    manifest::Tensor& t = m.tensors.emplace_back();
    t.name = cat("made.", m.tensors.size());
    t.dtype = e.root().dtype;
    t.shape = e.root().shape;
  }
  const TensorSource source(fake.opened(), m, std::move(made), stored);
  return convert::unproved_ranges(source)[0];
}

Expression stored(OpenFake& fake, uint64_t i) {
  return transform::stored_tensor(i, fake.model().manifest().tensors[i]);
}

Expression viewed(Expression of, const std::function<void(View&)>& change) {
  View view = View::of(of.root().shape);
  change(view);
  return Expression::view(std::move(of), view, {});
}

const std::vector<ByteRange> kAround{{0, 4}, {28, 32}, {62, 67}};
const std::vector<ByteRange> kAndA{{0, 32}, {62, 67}};

}  // namespace

TEST_CASE("tensors prove their bytes, and the rest is what lies between") {
  OpenFake fake(small_model());
  CHECK(convert::unproved_ranges(fake.model())[0] == kAround);
  CHECK(unproved(fake, {stored(fake, 0), stored(fake, 1), stored(fake, 2)}) == kAround);
}

TEST_CASE("values in another order or stacked prove their bytes too") {
  OpenFake fake(small_model());
  const auto turn = [](View& v) { REQUIRE(v.permute(std::vector<uint64_t>{1, 0})); };
  auto stack = Expression::concat({stored(fake, 0), stored(fake, 1)}, 0);
  REQUIRE(stack);
  CHECK(unproved(fake, {*stack, stored(fake, 2)}) == kAround);
  CHECK(unproved(fake, {viewed(stored(fake, 0), turn), stored(fake, 1), stored(fake, 2)}) ==
        kAround);
  CHECK(unproved(fake, {viewed(*stack, turn), stored(fake, 2)}) == kAround);
}

TEST_CASE("pieces prove a tensor when they are all of it") {
  OpenFake fake(small_model());
  const auto piece = [&](uint64_t begin, uint64_t count) {
    return viewed(stored(fake, 0), [&](View& v) { REQUIRE(v.slice(0, begin, count)); });
  };
  CHECK(unproved(fake, {piece(0, 1), piece(1, 1), stored(fake, 1), stored(fake, 2)}) == kAround);
  CHECK(unproved(fake, {piece(0, 1), piece(0, 1), stored(fake, 1), stored(fake, 2)}) == kAndA);
  CHECK(unproved(fake, {piece(1, 1), stored(fake, 1), stored(fake, 2)}) == kAndA);
  // Columns are no neighbours: nobody says that these are all of them.
  const auto column = [&](uint64_t begin, uint64_t count) {
    return viewed(stored(fake, 0), [&](View& v) { REQUIRE(v.slice(1, begin, count)); });
  };
  CHECK(unproved(fake, {column(0, 1), column(1, 2), stored(fake, 1), stored(fake, 2)}) == kAndA);
}

TEST_CASE("what is computed, left out, encoded or not looked at proves nothing") {
  OpenFake fake(small_model());
  auto sum = Expression::map(stored(fake, 0), transform::Mapping::kAdd, 1);
  REQUIRE(sum);
  CHECK(unproved(fake, {*sum, stored(fake, 1), stored(fake, 2)}) == kAndA);
  CHECK(unproved(fake, {stored(fake, 1), stored(fake, 2)}) == kAndA);
  FakeModel encoded = small_model();
  encoded.manifest.tensors[0].encoding = "ggml/q8_0";
  OpenFake other(encoded);
  CHECK(convert::unproved_ranges(other.model())[0] == kAndA);
  for (const auto& [strides, wanted] :
       {std::pair(std::vector<int64_t>{1, 2}, kAround), {std::vector<int64_t>{0, 1}, kAndA}}) {
    FakeModel strided = small_model();
    strided.manifest.tensors[0].strides = strides;  // a transposed one has all of its storage
    strided.manifest.tensors[0].storage_elements = 6;
    OpenFake third(strided);
    CHECK(convert::unproved_ranges(third.model())[0] == wanted);
  }
}
