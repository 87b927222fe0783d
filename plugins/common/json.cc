// SPDX-License-Identifier: Apache-2.0
#include "plugins/common/json.h"

#include "plugins/common/quote.h"

#include <algorithm>
#include <vector>

namespace crossdock::common {

namespace {

constexpr std::string_view kUtf8Mark = "\xef\xbb\xbf";

// True for an integer that is in neither int64 nor uint64.
bool exceeds_64_bits(std::string_view token) {
  const bool negative = token.starts_with('-');
  const std::string_view digits = token.substr(negative ? 1 : 0);
  if (digits.empty() || digits[0] == '0' ||
      digits.find_first_not_of("0123456789") != std::string_view::npos)
    return false;
  const std::string_view limit = negative ? "9223372036854775808" : "18446744073709551615";
  return digits.size() > limit.size() || (digits.size() == limit.size() && digits > limit);
}

// Python's JSON as strict JSON. Text that is neither stays wrong, for the parser to refuse.
std::string strict_from_python(std::string_view in) {
  constexpr std::string_view kTokenBytes =
      "+-.0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  std::string out;
  out.reserve(in.size() + 64);
  for (size_t i = 0; i < in.size();) {
    size_t end = i + 1;
    if (in[i] == '"') {
      while (end < in.size() && in[end] != '"') end += in[end] == '\\' ? 2 : 1;
      end = std::min(end + 1, in.size());
      out += in.substr(i, end - i);
    } else if (kTokenBytes.find(in[i]) != std::string_view::npos) {
      end = std::min(in.find_first_not_of(kTokenBytes, i), in.size());
      const std::string_view token = in.substr(i, end - i);
      if (token == "NaN" || token == "Infinity" || token == "-Infinity") {
        out += cat("\"", token, "\"");
      } else {
        out += token;
        if (exceeds_64_bits(token)) out += ".0";
      }
    } else {
      out += in[i];
    }
    i = end;
  }
  return out;
}

Result<manifest::Value> value_at(simdjson::dom::element element, int depth) {
  if (depth > kMaxJsonDepth && (element.is_array() || element.is_object()))
    return corrupt(cat("expected at most ", kMaxJsonDepth, " levels of nested JSON, found more"));
  manifest::Value out;
  switch (element.type()) {
    case simdjson::dom::element_type::NULL_VALUE:
      out.kind = manifest::Null();
      break;
    case simdjson::dom::element_type::BOOL:
      out.kind = bool(element);
      break;
    case simdjson::dom::element_type::INT64:
      out.kind = int64_t(element);
      break;
    case simdjson::dom::element_type::UINT64:
      out.kind = uint64_t(element);
      break;
    case simdjson::dom::element_type::DOUBLE:
      out.kind = double(element);
      break;
    case simdjson::dom::element_type::STRING:
      out.kind = std::string(std::string_view(element));
      break;
    case simdjson::dom::element_type::ARRAY: {
      manifest::ValueList list;
      for (const auto child : simdjson::dom::array(element)) {
        XD_TRY_SET(list.values.emplace_back(), value_at(child, depth + 1));
      }
      out.kind = std::move(list);
      break;
    }
    case simdjson::dom::element_type::OBJECT: {
      const simdjson::dom::object object(element);
      XD_TRY(check_unique_keys(object, "an object"));
      manifest::ValueMap map;
      for (const auto& [key, child] : object) {
        XD_TRY_SET(auto value, value_at(child, depth + 1));
        map.entries.push_back({std::string(key), std::move(value)});
      }
      out.kind = std::move(map);
      break;
    }
  }
  return out;
}

}  // namespace

Result<void> JsonDocument::parse(const char* padded, uint64_t length) {
  // Some versions of simdjson skip a byte order mark, others do not: here it is never part of
  // strict JSON.
  const std::string_view text(padded, length);
  if (text.starts_with(kUtf8Mark))
    return corrupt(
        "expected JSON, found a byte order mark in front: save the file as UTF-8 without a BOM");
  if (text.starts_with("\xff\xfe") || text.starts_with("\xfe\xff"))
    return corrupt("expected JSON in UTF-8, found UTF-16: save the file as UTF-8");
  const auto error =
      parser_->parse(reinterpret_cast<const uint8_t*>(padded), length, /*realloc_if_needed=*/false)
          .get(root_);
  if (error == simdjson::SUCCESS) return {};
  if (error == simdjson::MEMALLOC)
    return Error{XD_NO_MEMORY,
                 cat("expected memory to parse ", length, " bytes of JSON, found too little")};
  return corrupt(cat("expected JSON, found ", length, " bytes that are not (",
                     simdjson::error_message(error), ")"));
}

Result<JsonDocument> parse_json(std::string_view text, JsonDialect dialect) {
  if (dialect == JsonDialect::kPython && text.starts_with(kUtf8Mark))
    text.remove_prefix(kUtf8Mark.size());
  const simdjson::padded_string padded = dialect == JsonDialect::kPython
                                             ? simdjson::padded_string(strict_from_python(text))
                                             : simdjson::padded_string(text);
  JsonDocument out;
  XD_TRY(out.parse(padded.data(), padded.size()));
  return out;
}

Result<JsonDocument> read_json(const Host& host, const Source& source, uint64_t offset,
                               uint64_t length) {
  // simdjson's tape, structural indexes and strings: at most this many bytes for each of the
  // text's, while it parses. Untouched pages cost nothing; what counts is that the budget has room.
  constexpr uint64_t kParserBytes = 14;
  XD_TRY_SET(const Buffer buffer, Buffer::make(host, length + simdjson::SIMDJSON_PADDING));
  XD_TRY_SET(const Buffer reserved, Buffer::make(host, length * kParserBytes));
  XD_TRY(source.read(host, offset, buffer.span().first(length)));
  std::fill(buffer.span().begin() + static_cast<ptrdiff_t>(length), buffer.span().end(),
            std::byte{0});
  JsonDocument out;
  XD_TRY(out.parse(as_text(buffer.span()).data(), length));
  return out;
}

Result<void> check_unique_keys(simdjson::dom::object object, std::string_view where) {
  std::vector<std::string_view> keys;
  keys.reserve(object.size());
  for (const auto& field : object) keys.push_back(field.key);
  // Sorted, not hashed: the worst case of a hash table is the file's to choose. Most writers have
  // sorted them already.
  if (!std::is_sorted(keys.begin(), keys.end())) std::sort(keys.begin(), keys.end());
  const auto twice = std::adjacent_find(keys.begin(), keys.end());
  if (twice == keys.end()) return {};
  return corrupt(cat("expected each key of ", where, " once, found ", in_quotes(*twice), " twice"));
}

Result<manifest::Value> json_value(simdjson::dom::element element) { return value_at(element, 1); }

std::string_view kind_of(simdjson::dom::element element) {
  switch (element.type()) {
    case simdjson::dom::element_type::NULL_VALUE:
      return "null";
    case simdjson::dom::element_type::BOOL:
      return "a boolean";
    case simdjson::dom::element_type::INT64:
    case simdjson::dom::element_type::UINT64:
      return "an integer";
    case simdjson::dom::element_type::DOUBLE:
      return "a number with a fraction or exponent";
    case simdjson::dom::element_type::STRING:
      return "a string";
    case simdjson::dom::element_type::ARRAY:
      return "an array";
    case simdjson::dom::element_type::OBJECT:
      return "an object";
  }
  return "something else";
}

}  // namespace crossdock::common
