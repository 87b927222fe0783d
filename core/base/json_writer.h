// SPDX-License-Identifier: Apache-2.0

// JSON text, written in order: for the report and `inspect --json`. (simdjson only reads.)
//
//   JsonWriter json;
//   json.begin_object().member("name", tensor.name).key("shape").value(shape).end_object();
#pragma once

#include "core/base/text.h"

#include <fmt/format.h>

#include <cmath>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace crossdock::base {

class JsonWriter {
 public:
  JsonWriter& begin_object() { return open('{'); }
  JsonWriter& end_object() { return close('}'); }
  JsonWriter& begin_array() { return open('['); }
  JsonWriter& end_array() { return close(']'); }

  JsonWriter& key(std::string_view name) {
    separate();
    quote(name);
    out_ += ": ";
    after_key_ = true;
    return *this;
  }
  template <class T>
  JsonWriter& member(std::string_view name, const T& v) {
    return key(name).value(v);
  }

  template <class T>
  JsonWriter& value(const T& v) {
    separate();
    if constexpr (std::is_same_v<T, bool>) {
      out_ += v ? "true" : "false";
    } else if constexpr (std::is_floating_point_v<T>) {
      const std::string text = std::isfinite(v) ? fmt::format("{}", v) : "null";
      out_ += text;
      if (text.find_first_of(".enu") == std::string::npos)
        out_ += ".0";  // a float stays one for those who read it
    } else if constexpr (std::is_arithmetic_v<T>) {
      fmt::format_to(std::back_inserter(out_), "{}", v);
    } else if constexpr (std::is_convertible_v<T, std::string_view>) {
      quote(v);
    } else {  // a vector of any of these, on one line
      out_ += '[';
      const char* comma = "";
      for (const auto& element : v) {
        out_ += comma;
        comma = ", ";
        after_key_ = true;
        value(element);
      }
      out_ += ']';
    }
    return *this;
  }

  JsonWriter& null() {
    separate();
    out_ += "null";
    return *this;
  }

  // The finished text, with a newline at its end.
  std::string take() && { return std::move(out_) + "\n"; }

 private:
  JsonWriter& open(char bracket) {
    separate();
    out_ += bracket;
    ++depth_;
    first_ = true;
    return *this;
  }
  JsonWriter& close(char bracket) {
    --depth_;
    if (!first_) new_line();
    out_ += bracket;
    first_ = false;
    return *this;
  }
  void separate() {
    if (after_key_) {
      after_key_ = false;
      return;
    }
    if (depth_ == 0) return;
    if (!first_) out_ += ',';
    first_ = false;
    new_line();
  }
  void new_line() {
    out_ += '\n';
    // Deep entries (one per tensor or file) stay on their line's own indent of at most four:
    // reports have 100,000 of them.
    out_.append(2 * static_cast<size_t>(depth_ < 4 ? depth_ : 4), ' ');
  }
  // Bytes that are not UTF-8 (a path may hold any) become U+FFFD, so that the text can always be
  // read.
  void quote(std::string_view text) {
    const bool broken = !is_utf8(text);
    out_ += '"';
    for (const char c : text) {
      switch (c) {
        case '"':
          out_ += "\\\"";
          break;
        case '\\':
          out_ += "\\\\";
          break;
        case '\n':
          out_ += "\\n";
          break;
        case '\t':
          out_ += "\\t";
          break;
        default:
          if (static_cast<unsigned char>(c) < 0x20) {
            fmt::format_to(std::back_inserter(out_), "\\u{:04x}", static_cast<unsigned>(c));
          } else if (broken && static_cast<unsigned char>(c) >= 0x80) {
            out_ += "\xEF\xBF\xBD";
          } else {
            out_ += c;
          }
      }
    }
    out_ += '"';
  }

  std::string out_;
  int depth_ = 0;
  bool first_ = true;
  bool after_key_ = false;
};

}  // namespace crossdock::base
