// SPDX-License-Identifier: Apache-2.0
#include <crossdock/dtype.hpp>

#include <set>
#include <string>

#include "tests/catch.h"

using namespace crossdock::manifest;

TEST_CASE("every row of the table stands under its own number") {
  std::set<std::string_view> names;
  for (uint32_t i = 0; i < kDTypes.size(); ++i) {
    const auto dtype = static_cast<DType>(i);
    INFO(name(dtype));
    CHECK(&info(dtype) == &kDTypes[i]);
    CHECK(names.insert(name(dtype)).second);
    if (i != 0) {
      CHECK(dtype_named(name(dtype)) == dtype);
      CHECK(info(dtype).bits > 0);
      CHECK(info(dtype).kind != Kind::kNone);
    }
  }
  CHECK_FALSE(dtype_named("unspecified"));
  CHECK_FALSE(dtype_named("bf16"));  // safetensors' spelling only
}

TEST_CASE("sizes follow from the names") {
  for (const DTypeInfo& row : kDTypes) {
    INFO(row.name);
    if (row.kind == Kind::kNone || row.kind == Kind::kBool) continue;
    // The digits right after the letters are the bits; a complex type counts both parts.
    const auto digits = row.name.find_first_of("0123456789");
    CHECK(std::stoul(std::string(row.name.substr(digits))) == row.bits);
  }
  CHECK(info(DType::BOOL).bits == 8);
}

TEST_CASE("a number of no type that we know is unspecified") {
  CHECK(name(static_cast<DType>(kDTypes.size())) == "unspecified");
  CHECK(name(static_cast<DType>(UINT32_MAX)) == "unspecified");
}

TEST_CASE("dense_bytes refuses overflow and half-filled bytes") {
  CHECK(dense_bytes(DType::BF16, 3) == 6u);
  CHECK(dense_bytes(DType::C128, 2) == 32u);
  CHECK(dense_bytes(DType::F4, 2) == 1u);
  CHECK_FALSE(dense_bytes(DType::F4, 3));
  CHECK(dense_bytes(DType::F6_E2M3, 4) == 3u);
  CHECK_FALSE(dense_bytes(DType::F6_E3M2, 2));
  CHECK_FALSE(dense_bytes(DType::F64, UINT64_MAX / 8));  // the bits overflow
  CHECK(dense_bytes(DType::F32, 0) == 0u);
}
