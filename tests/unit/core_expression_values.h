// SPDX-License-Identifier: Apache-2.0

// The values of an expression of F32 tensors that no file holds: a function of their place.
#pragma once

#include "core/transform/expression.h"
#include "tests/catch.h"

#include <cstring>
#include <vector>

namespace crossdock::test {

// Of the first `count` elements; `value` gives element `i` of a stored tensor.
inline std::vector<float> values_of(const transform::Expression& expression, uint64_t count,
                                    float (*value)(uint64_t tensor, uint64_t i)) {
  std::vector<float> out(count);
  std::vector<std::byte> scratch(4096);
  REQUIRE(expression.evaluate(
      0, std::as_writable_bytes(std::span(out)), scratch,
      [value](uint64_t tensor, uint64_t begin, uint64_t n, std::span<std::byte> to) {
        for (uint64_t i = 0; i < n; ++i) {
          const float v = value(tensor, begin + i);
          std::memcpy(&to[4 * i], &v, 4);
        }
        return Result<void>();
      }));
  return out;
}

}  // namespace crossdock::test
