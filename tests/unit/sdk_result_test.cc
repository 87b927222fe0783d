// SPDX-License-Identifier: Apache-2.0
#include <crossdock/result.hpp>

#include <memory>

#include "tests/catch.h"

using crossdock::cat;
using crossdock::corrupt;
using crossdock::Error;
using crossdock::Result;

namespace {

Result<int> half(int n) {
  if (n % 2 != 0) return corrupt(cat("expected an even number, found ", n));
  return n / 2;
}

Result<int> quarter(int n) {
  XD_TRY_SET(const int once, half(n));
  XD_TRY_SET(const int twice, half(once));
  return twice;
}

Result<void> both_even(int a, int b) {
  XD_TRY(half(a));
  XD_TRY(half(b));
  return {};
}

}  // namespace

TEST_CASE("a result holds a value or an error") {
  const auto good = half(6);
  REQUIRE(good.has_value());
  CHECK(*good == 3);

  const auto bad = half(7);
  REQUIRE_FALSE(bad);
  CHECK(bad.error().code == XD_CORRUPT);
  CHECK(bad.error().message == "expected an even number, found 7");
}

TEST_CASE("XD_TRY and XD_TRY_SET pass the first error on") {
  CHECK(*quarter(12) == 3);
  CHECK(quarter(6).error().message == "expected an even number, found 3");
  CHECK(both_even(2, 4).has_value());
  CHECK(both_even(2, 5).error().message == "expected an even number, found 5");
}

TEST_CASE("a value that only moves is moved out") {
  Result<std::unique_ptr<int>> result = std::make_unique<int>(5);
  CHECK(*result.operator*() == 5);
  const std::unique_ptr<int> owned = *std::move(result);
  CHECK(*owned == 5);
}

TEST_CASE("each layer puts its place in front, once") {
  Error e = corrupt("read 3 bytes of 4").in("block 12").in("tensor \"w\"");
  CHECK(e.message == "tensor \"w\": block 12: read 3 bytes of 4");
  CHECK(e.code == XD_CORRUPT);
  // The message is in the host's slot: only places are kept here, with no colon after the last.
  CHECK((Error{XD_IO, "", true}.in("block 12").in("tensor \"w\"").message) ==
        "tensor \"w\": block 12");
}

TEST_CASE("a result of an error type's own shape is not taken for an error") {
  const Result<std::string> text = std::string("hello");
  CHECK(text->size() == 5);
  const Result<bool> no = false;
  CHECK(no.has_value());
  CHECK_FALSE(*no);
}
