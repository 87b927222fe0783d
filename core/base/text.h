// SPDX-License-Identifier: Apache-2.0

// Numbers and names as people read them.
#pragma once

#include <crossdock/file_name.hpp>

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace crossdock::base {

// "4.4 GB": decimal units, as disks and the Hugging Face Hub count.
std::string human_bytes(uint64_t n_bytes);

// "256 MiB": binary units, as memory is counted.
std::string human_memory(uint64_t n_bytes);

// "1.10 billion", "60.5 thousand": a count, as people say how many parameters a model has.
std::string human_count(uint64_t n);

// "12.3 s", "4 min 10 s".
std::string human_seconds(double seconds);

// "64", "512KiB", "256MiB", "1.5GiB", "2GB": a number of bytes. Nothing when it is not one, or does
// not fit.
std::optional<uint64_t> parse_size(std::string_view text);

// True for text without overlong forms, surrogates or stray bytes (RFC 3629).
bool is_utf8(std::string_view text);

// The text with control characters escaped, so that a name from a file cannot drive a terminal.
std::string printable(std::string_view text);

// "a, b and 3 more", each printable.
std::string listed(const std::vector<std::string>& names, size_t most = 5);

// The part of a dotted name behind its last dot: "weight" of "layers.0.weight".
std::string_view leaf(std::string_view name);

bool is_one_of(std::string_view text, std::span<const std::string_view> list);

// "[4, 2]", of a shape and the like.
template <class Sizes>
std::string list_text(const Sizes& sizes) {
  std::string out = "[";
  for (const auto& size : sizes) out += cat(out.size() > 1 ? ", " : "", size);
  return out + "]";
}

}  // namespace crossdock::base
