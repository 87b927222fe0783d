// SPDX-License-Identifier: Apache-2.0

// Values of a pickle as DeepSpeed's states have them: dicts whose keys are known, numbers that may
// be Python enums, and plain data.
#pragma once

#include "plugins/torch/read/pickle.h"

#include <crossdock/manifest_wire.hpp>

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace crossdock::deepspeed {

using torch_read::Kind;
using torch_read::Pickle;
using torch_read::Value;

// A dict of a pickle and its place there, which messages name. Borrows both.
class Dict {
 public:
  // Errors name the place: "optimizer_state_dict: expected a dict, found None".
  static Result<Dict> of(const Pickle& pickle, const Value& value, std::string place);

  const Pickle& pickle() const { return *pickle_; }
  const std::string& place() const { return place_; }
  std::string place_of(std::string_view key) const;

  // Null where the key is not there, or is None.
  const Value* find(std::string_view key) const;
  const Value* find(int64_t key) const;
  Result<const Value*> get(std::string_view key) const;
  Result<Dict> dict(std::string_view key) const;
  // A list or tuple.
  Result<std::span<const Value>> list(std::string_view key) const;
  // Nothing where it is not there; an error where it is no number of 0 or more.
  Result<std::optional<uint64_t>> natural(std::string_view key) const;
  // Empty where it is no text.
  std::string text(std::string_view key) const;

  // Keys and values in turn.
  std::span<const Value> items() const { return pickle_->items(value_); }

 private:
  Dict(const Pickle& pickle, const Value& value, std::string place)
      : pickle_(&pickle), value_(value), place_(std::move(place)) {}

  const Pickle* pickle_;
  Value value_;
  std::string place_;
};

// Of an int, and of a Python enum that is one, as DeepSpeed's ZeroStageEnum.
std::optional<int64_t> integer(const Pickle& pickle, const Value& value);
// An empty span for all but lists and tuples.
std::span<const Value> sequence(const Pickle& pickle, const Value& value);

// Converts plain data: None, numbers, texts, lists and dicts of such. What is none of these is left
// out, and its place kept for a warning.
class PlainData {
 public:
  explicit PlainData(const Pickle& pickle) : pickle_(pickle) {}

  std::optional<manifest::Value> of(const Value& value, const std::string& place) {
    return of(value, place, 0);
  }
  // The entries of a dict but those under the keys `without`.
  manifest::ValueMap map(const Value& dict, const std::string& place,
                         std::span<const std::string_view> without) {
    return map(dict, place, without, 0);
  }
  // Places of the first ones, and how many there are.
  const std::vector<std::string>& left_out() const { return left_out_; }
  size_t n_left_out() const { return n_left_out_; }

 private:
  std::nullopt_t leave_out(const std::string& place);
  std::optional<manifest::Value> of(const Value& value, const std::string& place, int depth);
  std::optional<manifest::Value> text(const Value& value);
  manifest::ValueMap map(const Value& dict, const std::string& place,
                         std::span<const std::string_view> without, int depth);

  const Pickle& pickle_;
  std::vector<std::string> left_out_;
  size_t n_values_ = 0, n_text_bytes_ = 0, n_left_out_ = 0;
};

}  // namespace crossdock::deepspeed
