// SPDX-License-Identifier: Apache-2.0

// How many tensors a value holds, wherever they are in it.
#pragma once

#include "plugins/torch/read/pickle.h"

namespace crossdock::torch_read {

inline constexpr uint64_t kMaxVisits = 4 * kMaxValues;  // of values, in all that one Counter counts

inline constexpr size_t kMaxEntries = 4'000'000;  // of dicts that may be the model, all together

struct Tally {
  uint64_t n_tensors =
      0;                 // storages and opaque values that stand for tensors or arrays are some too
  uint64_t n_elems = 0;  // of the tensors; for messages
  uint64_t n_parameters = 0;  // tensors in dicts, under names as parameters have them
};

// As far as a name that we know can be long: a text may be as long as the file, and be a million
// keys.
inline std::string_view key_of(const Pickle& pickle, const Value& text) {
  return pickle.text(text).substr(0, 200);
}

bool is_name_of_parameter(std::string_view name);

// Containers may hold one another in circles, or one of them a thousand times: each is looked into
// once for a value.
class Counter {
 public:
  explicit Counter(const Pickle& pickle) : pickle_(pickle), seen_(pickle.n_containers(), 0) {}

  Result<Tally> in(const Value& v);

 private:
  void visit(const Value& v, Tally& tally);

  const Pickle& pickle_;
  std::vector<uint32_t> seen_;  // by which count a container was looked into last
  uint32_t n_counts_ = 0;
  uint64_t n_visits_ = 0;
  std::vector<Value> to_visit_;
};

}  // namespace crossdock::torch_read
