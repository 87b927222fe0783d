// SPDX-License-Identifier: Apache-2.0
#include "core/rules/layout_config.h"

#include "core/base/json_writer.h"
#include "core/rules/rope.h"

#include <google/protobuf/struct.pb.h>
#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <cmath>

namespace crossdock::rules {

using manifest::Manifest;
using manifest::Value;
using manifest::ValueList;
using manifest::ValueMap;

namespace {

// '#' stands for any layer.
const manifest::Tensor* find_tensor(const Manifest& m, const std::string& name) {
  const size_t at = name.find('#');
  const std::string_view before = std::string_view(name).substr(0, at);
  const std::string_view behind =
      at == std::string::npos ? "" : std::string_view(name).substr(at + 1);
  const auto is_it = [&](const manifest::Tensor& t) {
    if (at == std::string::npos) return t.name == name;
    return t.name.size() >= name.size() && t.name.starts_with(before) && t.name.ends_with(behind) &&
           std::min(t.name.find_first_not_of("0123456789", at), t.name.size()) ==
               t.name.size() - behind.size();
  };
  const auto it = std::find_if(m.tensors.begin(), m.tensors.end(), is_it);
  return it == m.tensors.end() ? nullptr : &*it;
}

Value of_json(const google::protobuf::Value& v) {
  switch (v.kind_case()) {
    case google::protobuf::Value::kBoolValue:
      return {v.bool_value()};
    case google::protobuf::Value::kStringValue:
      return {v.string_value()};
    case google::protobuf::Value::kNumberValue:
      if (v.number_value() == std::floor(v.number_value()) && std::fabs(v.number_value()) < 0x1p53)
        return {static_cast<int64_t>(v.number_value())};
      return {v.number_value()};
    case google::protobuf::Value::kListValue: {
      ValueList list;
      for (const auto& element : v.list_value().values()) list.values.push_back(of_json(element));
      return {std::move(list)};
    }
    case google::protobuf::Value::kStructValue: {
      ValueMap map;
      for (const auto& [key, value] : v.struct_value().fields())
        map.entries.push_back({key, of_json(value)});
      return {std::move(map)};
    }
    default:
      return {manifest::Null{}};
  }
}

Result<Value> parse_json(const std::string& text) {
  google::protobuf::Value out;
  if (!google::protobuf::util::JsonStringToMessage(text, &out).ok())
    return invalid(cat("expected JSON in the rule, found ", text));
  return of_json(out);
}

void write(base::JsonWriter& json, const Value& v) {
  if (const auto* b = v.get<bool>()) {
    json.value(*b);
  } else if (const auto* i = v.get<int64_t>()) {
    json.value(*i);
  } else if (const auto* u = v.get<uint64_t>()) {
    json.value(*u);
  } else if (const auto* d = v.get<double>()) {
    // The shortest text that is this float32, which GGUF's numbers are.
    const auto narrow = static_cast<float>(*d);
    if (double{narrow} == *d) {
      json.value(narrow);
    } else {
      json.value(*d);
    }
  } else if (const auto* text = v.get<std::string>()) {
    json.value(*text);
  } else if (const auto* list = v.get<ValueList>()) {
    json.begin_array();
    for (const Value& element : list->values) write(json, element);
    json.end_array();
  } else if (const auto* map = v.get<ValueMap>()) {
    json.begin_object();
    for (const auto& [key, value] : map->entries) {
      json.key(key);
      write(json, value);
    }
    json.end_object();
  } else {
    json.value(NAN);  // null
  }
}

Result<std::vector<int64_t>> integers(const Value& v, const std::string& key) {
  const auto* list = v.get<ValueList>();
  std::vector<int64_t> out;
  for (const Value& element : list ? list->values : std::vector<Value>{v}) {
    const auto* n = element.get<int64_t>();
    if (!n) return invalid(cat("expected ", key, " to be integers, found something else"));
    out.push_back(*n);
  }
  return out;
}

// Of a small F32 tensor; nothing when there is none.
Result<std::vector<float>> values_of(const std::string& name, const Manifest& m,
                                     const ReadTensor& read) {
  constexpr uint64_t kMax = 4096;
  const auto* t = find_tensor(m, name);
  if (!t) return std::vector<float>();
  const auto n = checked_product(t->shape);
  if (t->dtype != manifest::DType::F32 || !t->strides.empty() || !n || *n > kMax)
    return unsupported(
        cat("expected ", name, " to be at most ", kMax, " dense F32 values, found something else"));
  std::vector<float> out(*n);
  XD_TRY(read(static_cast<uint64_t>(t - m.tensors.data()), *n,
              std::as_writable_bytes(std::span(out))));
  return out;
}

ValueMap to_map(const Llama3Scaling& s) {
  return {{{"rope_type", {std::string("llama3")}},
           {"factor", {s.factor}},
           {"low_freq_factor", {s.low_freq_factor}},
           {"high_freq_factor", {s.high_freq_factor}},
           {"original_max_position_embeddings",
            {static_cast<int64_t>(s.original_max_position_embeddings)}}}};
}

// Nothing: the source has no such key, or tensor.
Result<std::optional<Value>> value_of(const pb::ConfigEntry& entry, const Variables& variables,
                                      const Manifest& m, const ReadTensor& read) {
  const auto some = [](auto v) { return std::optional<Value>(Value{std::move(v)}); };
  switch (entry.value_case()) {
    case pb::ConfigEntry::kFrom: {
      const auto found = variables.find(entry.from());
      if (!found) return std::optional<Value>();
      XD_TRY_SET(const Value* v, in_layer(*found, kNoLayer));
      return v ? std::optional<Value>(*v) : std::nullopt;
    }
    case pb::ConfigEntry::kJson: {
      XD_TRY_SET(Value v, parse_json(entry.json()));
      return std::optional<Value>(std::move(v));
    }
    case pb::ConfigEntry::kHasTensor:
      return some(find_tensor(m, entry.has_tensor()) != nullptr);
    case pb::ConfigEntry::kLacksTensor:
      return some(find_tensor(m, entry.lacks_tensor()) == nullptr);
    case pb::ConfigEntry::kRowsOf: {
      const auto* t = find_tensor(m, entry.rows_of());
      return t && !t->shape.empty() ? some(static_cast<int64_t>(t->shape[0])) : std::nullopt;
    }
    case pb::ConfigEntry::kNumber: {
      XD_TRY_SET(const uint64_t n, variables.number(entry.number()));
      return some(static_cast<int64_t>(n));
    }
    case pb::ConfigEntry::kRatio: {
      XD_TRY_SET(const uint64_t of, variables.number(entry.ratio().of()));
      XD_TRY_SET(const uint64_t to, variables.number(entry.ratio().to()));
      if (to == 0) return invalid("expected a ratio to more than 0, found 0");
      return some(static_cast<double>(of) / static_cast<double>(to));
    }
    case pb::ConfigEntry::kAbove: {
      XD_TRY_SET(const uint64_t of, variables.number(entry.above().of()));
      return some(of > entry.above().than());
    }
    case pb::ConfigEntry::kValuesOf: {
      XD_TRY_SET(const auto values, values_of(entry.values_of(), m, read));
      ValueList list;
      for (const float v : values) list.values.push_back({double{v}});
      return values.empty() ? std::nullopt : some(std::move(list));
    }
    case pb::ConfigEntry::kLlama3Scaling: {
      XD_TRY_SET(const auto factors, values_of(entry.llama3_scaling().factors(), m, read));
      const auto base = variables.find(entry.llama3_scaling().base());
      const double* theta = base ? base->value->get<double>() : nullptr;
      const auto found = theta ? find_llama3_scaling(factors, *theta) : std::nullopt;
      return found ? some(to_map(*found)) : std::nullopt;
    }
    case pb::ConfigEntry::kGreatestOf:
    case pb::ConfigEntry::kPositiveIn:
      break;
    case pb::ConfigEntry::VALUE_NOT_SET:
      return invalid("expected a value, found none");
  }
  const std::string& key = entry.has_greatest_of() ? entry.greatest_of() : entry.positive_in();
  const auto found = variables.find(key);
  if (!found) return std::optional<Value>();
  XD_TRY_SET(const auto list, integers(*found->value, key));
  if (entry.has_greatest_of())
    return list.empty() ? std::nullopt : some(*std::max_element(list.begin(), list.end()));
  ValueList indexes;
  for (size_t i = 0; i < list.size(); ++i) {
    if (list[i] > 0) indexes.values.push_back({static_cast<int64_t>(i)});
  }
  return some(std::move(indexes));
}

// {"rope_scaling.factor", 8} as {"rope_scaling", {"factor", 8}}.
Result<ValueMap> nest(ValueMap flat) {
  ValueMap out;
  for (manifest::KeyValue& entry : flat.entries) {
    const std::string name = entry.key.substr(0, entry.key.find('.'));
    auto it = std::find_if(out.entries.begin(), out.entries.end(),
                           [&](const auto& e) { return e.key == name; });
    if (it == out.entries.end() && name == entry.key) {
      out.entries.push_back(std::move(entry));
      continue;
    }
    if (it == out.entries.end()) it = out.entries.insert(it, {name, {ValueMap{}}});
    auto* map = std::get_if<ValueMap>(&it->value.kind);
    if (!map || name == entry.key)
      return invalid(cat("config ", name, ": expected a map or a value, found both"));
    std::string rest = entry.key.substr(name.size() + 1);
    if (map->find(rest) || rest.find('.') != std::string::npos)
      return invalid(cat("config ", entry.key,
                         ": expected a new field of a map, found one that it has, or two dots"));
    map->entries.push_back({std::move(rest), std::move(entry.value)});
  }
  return out;
}

}  // namespace

Result<Config> make_config(const pb::Layout& layout, const Variables& variables, const Manifest& m,
                           const ReadTensor& read) {
  Config out;
  if (layout.config().empty()) return out;
  ValueMap flat;
  std::vector<std::string> without;
  for (const pb::ConfigEntry& entry : layout.config()) {
    // The first that gives a value counts, be it of a field or of the whole map that it belongs to.
    if (flat.find(entry.key()) || flat.find(entry.key().substr(0, entry.key().find('.')))) continue;
    if (!all_hold(entry.when(), Facts(m))) continue;
    if (!entry.if_has().empty() && !find_tensor(m, entry.if_has())) continue;
    auto v = value_of(entry, variables, m, read);
    const bool lacks_key = !v && v.error().code == XD_NOT_FOUND;
    if (!v && !lacks_key) return std::move(v).error().in(cat("config ", entry.key()));
    if (!lacks_key && *v) {
      flat.entries.push_back({entry.key(), **std::move(v)});
    } else if (std::find(without.begin(), without.end(), entry.key()) == without.end()) {
      without.push_back(entry.key());
    }
  }
  for (std::string& key : without) {
    if (!flat.find(key)) out.missing.push_back(std::move(key));
  }
  XD_TRY_SET(ValueMap map, nest(std::move(flat)));
  out.value.kind = std::move(map);
  base::JsonWriter json;
  write(json, out.value);
  out.text = std::move(json).take();
  return out;
}

}  // namespace crossdock::rules
