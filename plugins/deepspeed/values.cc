// SPDX-License-Identifier: Apache-2.0
#include "plugins/deepspeed/values.h"

#include "plugins/common/file_names.h"
#include "plugins/common/quote.h"

#include <simdjson.h>

#include <algorithm>
#include <map>

namespace crossdock::deepspeed {

namespace {

// A list may hold itself, or one list a million times: what is converted is bounded in depth and in
// number.
constexpr int kMaxNesting = 32;
constexpr size_t kMaxPlainValues = 1'000'000, kMaxPlainBytes = 64 << 20;

}  // namespace

Result<Dict> Dict::of(const Pickle& pickle, const Value& value, std::string place) {
  if (value.kind == Kind::kDict) return Dict(pickle, value, std::move(place));
  Error e = corrupt(cat("expected a dict, found ", torch_read::name_of(value.kind)));
  return place.empty() ? std::move(e) : std::move(e).in(place);
}

std::string Dict::place_of(std::string_view key) const {
  return place_.empty() ? std::string(key) : cat(place_, '.', key);
}

const Value* Dict::find(std::string_view key) const {
  const Value* v = pickle_->find(value_, key);
  return v && v->kind != Kind::kNone ? v : nullptr;
}

const Value* Dict::find(int64_t key) const {
  const auto all = items();
  for (size_t i = all.size(); i >= 2; i -= 2) {
    if (all[i - 2].kind == Kind::kInt && static_cast<int64_t>(all[i - 2].data) == key)
      return all[i - 1].kind == Kind::kNone ? nullptr : &all[i - 1];
  }
  return nullptr;
}

Result<const Value*> Dict::get(std::string_view key) const {
  if (const Value* v = find(key)) return v;
  return corrupt(cat("expected ", common::in_quotes(place_of(key)), ", found none"));
}

Result<Dict> Dict::dict(std::string_view key) const {
  XD_TRY_SET(const Value* const v, get(key));
  return of(*pickle_, *v, place_of(key));
}

Result<std::span<const Value>> Dict::list(std::string_view key) const {
  XD_TRY_SET(const Value* const v, get(key));
  if (v->kind == Kind::kList || v->kind == Kind::kTuple) return sequence(*pickle_, *v);
  return corrupt(cat(place_of(key), ": expected a list, found ", torch_read::name_of(v->kind)));
}

Result<std::optional<uint64_t>> Dict::natural(std::string_view key) const {
  const Value* v = find(key);
  if (!v) return std::optional<uint64_t>();
  const auto number = integer(*pickle_, *v);
  if (number && *number >= 0) return std::optional(static_cast<uint64_t>(*number));
  return corrupt(cat(place_of(key), ": expected a number of 0 or more, found ",
                     number ? cat(*number) : std::string(torch_read::name_of(v->kind))));
}

std::string Dict::text(std::string_view key) const {
  const Value* v = find(key);
  return v && v->kind == Kind::kText ? std::string(pickle_->text(*v)) : std::string();
}

std::optional<int64_t> integer(const Pickle& pickle, const Value& value) {
  const Value* v = value.kind == Kind::kOpaque ? pickle.argument_of(value) : &value;
  if (!v || v->kind != Kind::kInt) return std::nullopt;
  return static_cast<int64_t>(v->data);
}

std::span<const Value> sequence(const Pickle& pickle, const Value& value) {
  if (value.kind == Kind::kList) return pickle.items(value);
  return value.kind == Kind::kTuple ? pickle.tuple(value) : std::span<const Value>();
}

std::nullopt_t PlainData::leave_out(const std::string& place) {
  if (n_left_out_++ < common::kMaxListed) left_out_.push_back(place);
  return std::nullopt;
}

std::optional<manifest::Value> PlainData::text(const Value& value) {
  const std::string_view text = pickle_.text(value);
  n_text_bytes_ += text.size();
  if (n_text_bytes_ > kMaxPlainBytes || !simdjson::validate_utf8(text.data(), text.size()))
    return std::nullopt;
  return manifest::Value{std::string(text)};
}

// Of keys that are there twice the last one counts, as in Python. Integers become texts, as in
// JSON.
manifest::ValueMap PlainData::map(const Value& dict, const std::string& place,
                                  std::span<const std::string_view> without, int depth) {
  manifest::ValueMap out;
  std::map<std::string, size_t> known;
  const auto items = pickle_.items(dict);
  for (size_t i = 0; i + 1 < items.size() && n_values_ <= kMaxPlainValues; i += 2) {
    const bool is_number = items[i].kind == Kind::kInt;
    const auto text =
        items[i].kind == Kind::kText ? this->text(items[i]) : std::optional<manifest::Value>();
    if (!is_number && !text) {
      ++n_values_;
      leave_out(cat(place, " (a key that is no text)"));
      continue;
    }
    std::string key =
        is_number ? cat(static_cast<int64_t>(items[i].data)) : *text->get<std::string>();
    if (std::find(without.begin(), without.end(), key) != without.end()) continue;
    auto value = of(items[i + 1], place.empty() ? key : cat(place, '.', key), depth + 1);
    if (!value) continue;
    const auto [it, is_new] = known.emplace(key, out.entries.size());
    if (is_new) {
      out.entries.push_back({std::move(key), std::move(*value)});
    } else {
      out.entries[it->second].value = std::move(*value);
    }
  }
  return out;
}

std::optional<manifest::Value> PlainData::of(const Value& value, const std::string& place,
                                             int depth) {
  if (++n_values_ > kMaxPlainValues || depth > kMaxNesting) return leave_out(place);
  switch (value.kind) {
    case Kind::kNone:
      return manifest::Value{manifest::Null()};
    case Kind::kBool:
      return manifest::Value{value.data != 0};
    case Kind::kInt:
      return manifest::Value{static_cast<int64_t>(value.data)};
    case Kind::kFloat:
      return manifest::Value{value.real()};
    case Kind::kText:
      if (auto out = text(value)) return out;
      return leave_out(place);
    case Kind::kDict:
      return manifest::Value{map(value, place, {}, depth)};
    case Kind::kList:
    case Kind::kTuple: {
      manifest::ValueList list;
      for (const Value& item : sequence(pickle_, value)) {
        // A list with a gap would be another list.
        auto one = of(item, place, depth + 1);
        if (!one) return std::nullopt;
        list.values.push_back(std::move(*one));
      }
      return manifest::Value{std::move(list)};
    }
    default:
      return leave_out(place);
  }
}

}  // namespace crossdock::deepspeed
