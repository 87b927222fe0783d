// SPDX-License-Identifier: Apache-2.0
#include "core/model/value_text.h"

#include "core/base/text.h"

#include <fmt/format.h>

namespace crossdock::model {

namespace {

using manifest::Value;

constexpr size_t kMaxListed = 32;

class Text {
 public:
  explicit Text(size_t limit) : limit_(limit) {}

  void add(const Value& value) {
    if (const auto* text = value.get<std::string>()) return quote(*text);
    if (const auto* flag = value.get<bool>()) return put(*flag ? "true" : "false");
    if (const auto* number = value.get<int64_t>()) return put(fmt::format("{}", *number));
    if (const auto* number = value.get<uint64_t>()) return put(fmt::format("{}", *number));
    if (const auto* number = value.get<double>()) return put(fmt::format("{}", *number));
    if (const auto* list = value.get<manifest::ValueList>()) {
      if (list->values.size() > kMaxListed)  // a vocabulary
        return put(fmt::format("[{} values]", list->values.size()));
      return between('[', list->values, ']', [&](const Value& one) { add(one); });
    }
    if (const auto* map = value.get<manifest::ValueMap>()) {
      return between('{', map->entries, '}', [&](const manifest::KeyValue& entry) {
        quote(entry.key);
        put(": ");
        add(entry.value);
      });
    }
    put("null");
  }

  std::string take() && { return is_full() ? out_ + "..." : std::move(out_); }

 private:
  bool is_full() const { return out_.size() >= limit_; }
  void put(std::string_view text) { out_ += text; }
  void quote(std::string_view text) {
    const std::string part(text.substr(0, limit_));
    put(cat('"', base::printable(part), text.size() > part.size() ? "..." : "", '"'));
  }
  void between(char open, const auto& entries, char close, const auto& add_one) {
    out_ += open;
    const char* comma = "";
    for (const auto& entry : entries) {
      if (is_full()) return;
      put(comma);
      comma = ", ";
      add_one(entry);
    }
    out_ += close;
  }

  const size_t limit_;
  std::string out_;
};

}  // namespace

std::string value_text(const Value& value, size_t limit) {
  if (const auto* text = value.get<std::string>()) return base::printable(text->substr(0, limit));
  Text out(limit);
  out.add(value);
  return std::move(out).take();
}

void write_value(base::JsonWriter& json, const Value& value) {
  if (const auto* text = value.get<std::string>()) {
    json.value(*text);
  } else if (const auto* flag = value.get<bool>()) {
    json.value(*flag);
  } else if (const auto* signed_number = value.get<int64_t>()) {
    json.value(*signed_number);
  } else if (const auto* number = value.get<uint64_t>()) {
    json.value(*number);
  } else if (const auto* real = value.get<double>()) {
    json.value(*real);
  } else if (const auto* list = value.get<manifest::ValueList>()) {
    json.begin_array();
    for (const Value& one : list->values) write_value(json, one);
    json.end_array();
  } else if (const auto* map = value.get<manifest::ValueMap>()) {
    write_values(json, map->entries);
  } else {
    json.null();
  }
}

void write_values(base::JsonWriter& json, const std::vector<manifest::KeyValue>& entries) {
  json.begin_object();
  for (const manifest::KeyValue& entry : entries) {
    json.key(entry.key);
    write_value(json, entry.value);
  }
  json.end_object();
}

}  // namespace crossdock::model
