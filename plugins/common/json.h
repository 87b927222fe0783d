// SPDX-License-Identifier: Apache-2.0

// Strict JSON from files that we do not trust: simdjson's DOM, plus what it leaves open.
//
//   XD_TRY_SET(const JsonDocument doc, read_json(host, source, 8, header_bytes));
//   XD_TRY(check_unique_keys(doc.root(), "the header"));
//
// simdjson refuses invalid UTF-8, lone surrogates, control characters in strings, and numbers that
// fit no 64-bit type; it accepts repeated keys, which check_unique_keys() and json_value() refuse,
// after unescaping: two readers of one file must not see two different things. A document owns all
// its text; its elements live as long as it does.
#pragma once

#include <crossdock/plugin.hpp>

#include <simdjson.h>

#include <memory>
#include <string>
#include <string_view>

namespace crossdock::common {

// Of values that go into a manifest: a level of JSON is up to three nested messages, and protobuf
// reads 100 of those.
inline constexpr int kMaxJsonDepth = 30;

enum class JsonDialect {
  kStrict,
  // What people's config files hold: a byte order mark, and what Python's json.dump writes: also
  // NaN, Infinity and -Infinity, which become strings, and integers of any size, which become
  // doubles when 64 bits do not hold them. For config.json and its kind only.
  kPython,
};

class JsonDocument {
 public:
  simdjson::dom::element root() const { return root_; }

 private:
  friend Result<JsonDocument> parse_json(std::string_view, JsonDialect);
  friend Result<JsonDocument> read_json(const Host&, const Source&, uint64_t, uint64_t);
  JsonDocument() : parser_(std::make_unique<simdjson::dom::parser>()) {}
  Result<void> parse(const char* padded, uint64_t length);

  std::unique_ptr<simdjson::dom::parser> parser_;
  simdjson::dom::element root_;
};

Result<JsonDocument> parse_json(std::string_view text, JsonDialect dialect = JsonDialect::kStrict);

// Bytes [offset, offset + length) of the source. The text is in the host's memory budget, and freed
// on return.
Result<JsonDocument> read_json(const Host& host, const Source& source, uint64_t offset,
                               uint64_t length);

// `where` names the object in the message.
Result<void> check_unique_keys(simdjson::dom::object object, std::string_view where);

// The whole value, for a manifest: integers as int64, as uint64 only above its range, other numbers
// as double.
Result<manifest::Value> json_value(simdjson::dom::element element);

// "a string", "an array", ...: for messages.
std::string_view kind_of(simdjson::dom::element element);

}  // namespace crossdock::common
