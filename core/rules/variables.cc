// SPDX-License-Identifier: Apache-2.0
#include "core/rules/variables.h"

#include "core/base/text.h"
#include "core/model/config.h"

#include <crossdock/bytes.hpp>

#include <algorithm>
#include <charconv>

namespace crossdock::rules {

using manifest::Value;

namespace {

constexpr int kMaxLets = 256;

bool holds(const pb::Condition& condition, const Facts& facts, uint64_t layer) {
  using pb::Condition;
  const auto fact = facts.find(condition.key());
  if (condition.test_case() == Condition::kPresent) return fact.has_value() == condition.present();
  const auto element = fact ? in_layer(*fact, layer) : Result<const Value*>(nullptr);
  const Value* v = element ? *element : nullptr;
  const std::string* text = v ? v->get<std::string>() : nullptr;
  const int64_t* number = v ? v->get<int64_t>() : nullptr;
  switch (condition.test_case()) {
    case Condition::kEquals:
      return text && *text == condition.equals();
    case Condition::kContains:
      return text && fold_case(*text).find(fold_case(condition.contains())) != std::string::npos;
    case Condition::kPositive:
      return (number && *number > 0) == condition.positive();
    case Condition::kPresent:
    case Condition::TEST_NOT_SET:
      break;
  }
  return false;
}

}  // namespace

Result<const Value*> in_layer(const Fact& fact, uint64_t layer) {
  const auto* list = fact.value->get<manifest::ValueList>();
  if (!list) return fact.value;
  if (layer == kNoLayer) {
    if (list->values.empty()) return nullptr;
    const auto other =
        std::find_if(list->values.begin(), list->values.end(),
                     [&](const Value& element) { return element != list->values[0]; });
    if (other == list->values.end()) return &list->values[0];
    return unsupported(
        cat("expected ", fact.key,
            " to be the same for all layers, as it is in this architecture, found that of layer ",
            other - list->values.begin(), " to differ from that of layer 0"));
  }
  if (layer < list->values.size()) return &list->values[layer];
  return invalid(cat("expected ", fact.key, " to have an element for layer ", layer, ", found ",
                     list->values.size()));
}

bool all_hold(const google::protobuf::RepeatedPtrField<pb::Condition>& conditions,
              const Facts& facts, uint64_t layer) {
  return std::all_of(conditions.begin(), conditions.end(),
                     [&](const auto& c) { return holds(c, facts, layer); });
}

std::optional<Fact> Variables::find(std::string_view keys) const {
  for (size_t begin = 0; begin <= keys.size();) {
    const size_t end = std::min(keys.find('|', begin), keys.size());
    if (const auto fact = facts_.find(keys.substr(begin, end - begin))) return fact;
    begin = end + 1;
  }
  return std::nullopt;
}

Result<uint64_t> Variables::value(const std::string& name, uint64_t layer, const Lets& lets) const {
  for (size_t i = 0; i < lets.size(); ++i) {
    if (lets_[static_cast<int>(i)].name() == name) return lets[i];
  }
  const auto found = find(name);
  if (!found) return Error{XD_NOT_FOUND, cat("expected the metadata ", name, ", found none")};
  XD_TRY_SET(const Value* v, in_layer(*found, layer));
  if (!v) return Error{XD_NOT_FOUND, cat("expected the metadata ", name, ", found an empty list")};
  if (const auto n = model::number_of(v)) return *n;
  return invalid(cat("expected ", name, " to be an integer of 0 or more, found something else"));
}

Result<uint64_t> Variables::number(const std::string& text, uint64_t layer) const {
  if (lets_.size() > kMaxLets)
    return invalid(cat("expected at most ", kMaxLets, " variables, found ", lets_.size()));
  Lets lets;
  if (text.find('{') != std::string::npos) {
    for (const auto& let : lets_) lets.push_back(sum(let.value(), layer, lets));
  }
  return sum(text, layer, lets);
}

Result<uint64_t> Variables::sum(const std::string& text, uint64_t layer, const Lets& lets) const {
  uint64_t out = 0;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find('+', begin), text.size());
    XD_TRY_SET(const uint64_t n, product(text.substr(begin, end - begin), layer, lets));
    const auto total = checked_add(out, n);
    if (!total) return invalid(cat("expected a sum below 2^64, found \"", text, '"'));
    out = *total;
    begin = end + 1;
  }
  return out;
}

Result<uint64_t> Variables::product(const std::string& text, uint64_t layer,
                                    const Lets& lets) const {
  const auto fail = [&] {
    return invalid(cat("expected a number such as 2*{a}/{b}, found \"", text, '"'));
  };
  uint64_t out = 1;
  char op = '*';
  for (size_t at = 0; at < text.size();) {
    uint64_t next = 0;
    if (text[at] == '{') {
      const size_t end = text.find('}', at);
      if (end == std::string::npos) return fail();
      XD_TRY_SET(next, value(text.substr(at + 1, end - at - 1), layer, lets));
      at = end + 1;
    } else {
      const auto [end, error] = std::from_chars(text.data() + at, text.data() + text.size(), next);
      if (error != std::errc()) return fail();
      at = static_cast<size_t>(end - text.data());
    }
    if (op == '*') {
      const auto product = checked_mul(out, next);
      if (!product) return invalid(cat("expected a product below 2^64, found \"", text, '"'));
      out = *product;
    } else {
      if (next == 0 || out % next != 0)
        return invalid(cat("expected \"", text, "\" to divide evenly, found ", out, " / ", next));
      out /= next;
    }
    if (at == text.size()) return out;
    op = text[at++];
    if ((op != '*' && op != '/') || at == text.size()) return fail();
  }
  return fail();
}

}  // namespace crossdock::rules
