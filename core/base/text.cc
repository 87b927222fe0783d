// SPDX-License-Identifier: Apache-2.0
#include "core/base/text.h"

#include <algorithm>

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cmath>
#include <utility>

namespace crossdock::base {

namespace {
// The value in the largest unit that leaves at least 1 of it, and that unit's index; 0 when it is
// below the first.
std::pair<double, size_t> scale(uint64_t n, double step, size_t n_units) {
  auto value = static_cast<double>(n);
  size_t unit = 0;
  for (; value >= step * 0.9995 && unit < n_units; ++unit) value /= step;
  return {value, unit};
}
}  // namespace

std::string human_bytes(uint64_t n_bytes) {
  constexpr std::array kUnits{"B", "kB", "MB", "GB", "TB", "PB", "EB"};
  const auto [value, unit] = scale(n_bytes, 1000, kUnits.size() - 1);
  return fmt::format("{:.{}f} {}", value, unit > 0 && value < 9.95 ? 1 : 0, kUnits[unit]);
}

std::string human_memory(uint64_t n_bytes) {
  constexpr std::array kUnits{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  const auto [value, unit] = scale(n_bytes, 1024, kUnits.size() - 1);
  return fmt::format("{:.{}f} {}", value, value < 9.95 && value != std::floor(value) ? 1 : 0,
                     kUnits[unit]);
}

std::string human_count(uint64_t n) {
  constexpr std::array kUnits{"", " thousand", " million", " billion", " trillion"};
  const auto [value, unit] = scale(n, 1000, kUnits.size() - 1);
  return fmt::format("{:.{}f}{}", value,
                     unit == 0 || value >= 99.95 ? 0
                     : value >= 9.995            ? 1
                                                 : 2,
                     kUnits[unit]);
}

std::string human_seconds(double seconds) {
  if (seconds < 59.95) return fmt::format("{:.1f} s", seconds);
  const auto whole = static_cast<uint64_t>(seconds + 0.5);
  if (whole < 3600) return fmt::format("{} min {} s", whole / 60, whole % 60);
  return fmt::format("{} h {} min", whole / 3600, whole / 60 % 60);
}

std::optional<uint64_t> parse_size(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || !(value >= 0)) return std::nullopt;
  const std::string unit = fold_case({end, static_cast<size_t>(text.data() + text.size() - end)});
  struct Unit {
    std::string_view name;
    double bytes;
  };
  constexpr Unit kUnits[] = {{"", 1},
                             {"b", 1},
                             {"kb", 1e3},
                             {"mb", 1e6},
                             {"gb", 1e9},
                             {"tb", 1e12},
                             {"kib", 1024.0},
                             {"mib", 1048576.0},
                             {"k", 1024.0},
                             {"m", 1048576.0},
                             {"g", 1073741824.0},
                             {"gib", 1073741824.0},
                             {"tib", 1099511627776.0}};
  for (const Unit& u : kUnits) {
    if (u.name != unit) continue;
    const double bytes = std::floor(value * u.bytes);
    if (bytes < 0x1p63) return static_cast<uint64_t>(bytes);
  }
  return std::nullopt;
}

bool is_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<uint8_t>(text[i]);
    const size_t n = lead < 0x80                   ? 1
                     : lead >= 0xC2 && lead < 0xE0 ? 2
                     : (lead & 0xF0) == 0xE0       ? 3
                     : lead >= 0xF0 && lead < 0xF5 ? 4
                                                   : 0;
    if (n == 0 || i + n > text.size()) return false;
    uint32_t code = n == 1 ? lead : lead & (0x7Fu >> n);
    for (size_t k = 1; k < n; ++k) {
      const auto byte = static_cast<uint8_t>(text[i + k]);
      if ((byte & 0xC0) != 0x80) return false;
      code = code << 6 | (byte & 0x3F);
    }
    const bool overlong = (n == 3 && code < 0x800) || (n == 4 && code < 0x10000);
    if (overlong || (code >= 0xD800 && code < 0xE000) || code > 0x10FFFF) return false;
    i += n;
  }
  return true;
}

std::string printable(std::string_view text) {
  const bool is_text = is_utf8(text);
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<uint8_t>(c);
    if (byte < 0x20 || byte == 0x7F || (byte > 0x7F && !is_text)) {
      out += fmt::format("\\x{:02x}", byte);
    } else {
      out += c;
    }
  }
  return out;
}

std::string listed(const std::vector<std::string>& names, size_t most) {
  std::string out;
  for (size_t i = 0; i < names.size() && i < most; ++i)
    out += (i ? ", " : "") + printable(names[i]);
  if (names.size() > most) out += " and " + std::to_string(names.size() - most) + " more";
  return out;
}

std::string_view leaf(std::string_view name) { return name.substr(name.rfind('.') + 1); }

bool is_one_of(std::string_view text, std::span<const std::string_view> list) {
  return std::find(list.begin(), list.end(), text) != list.end();
}

}  // namespace crossdock::base
