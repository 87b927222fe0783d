// SPDX-License-Identifier: Apache-2.0

// Elements of any type as numbers and as text, for those who compare values.
#pragma once

#include <crossdock/dtype.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace crossdock::verify {

// Whether to_doubles() can read it: all types but complex ones.
bool is_number(manifest::DType dtype);

// Values of elements [first, first + out.size()) of `packed`, which begins with a whole byte's
// element. Integers beyond 2^53 are rounded.
void to_doubles(manifest::DType dtype, const std::byte* packed, uint64_t first,
                std::span<double> out);

// "1.25", "-inf", "nan (0x7fc0)"; of a complex one "0x..." of its bytes.
std::string element_text(manifest::DType dtype, const std::byte* packed, uint64_t index);

// The first of n elements of one type that has other bits; n when none has.
uint64_t first_difference(manifest::DType dtype, const std::byte* a, const std::byte* b,
                          uint64_t n);

// "tensor \"x\" [3, 17]": the place of an element, row-major.
std::string place_text(const std::string& tensor, std::span<const uint64_t> shape, uint64_t index);

}  // namespace crossdock::verify
