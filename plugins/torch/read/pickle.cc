// SPDX-License-Identifier: Apache-2.0
#include "plugins/torch/read/pickle.h"

#include "plugins/torch/read/machine.h"

#include <algorithm>

namespace crossdock::torch_read {

const Value* Pickle::find(const Value& dict, std::string_view key) const {
  const auto all = items(dict);
  for (size_t i = all.size(); i >= 2; i -= 2) {
    if (all[i - 2].kind == Kind::kText && text(all[i - 2]) == key) return &all[i - 1];
  }
  return nullptr;
}

std::string Pickle::class_of(const Value& v) const {
  const auto all = items(v);
  return cat(text(all[0]), '.', text(all[1]));
}

// Its module, its name, then what it was made of.
constexpr size_t kFirstPart = 2;

const Value* Pickle::argument_of(const Value& opaque) const {
  const auto all = items(opaque);
  if (all.size() != kFirstPart + 2 || all.back().kind != Kind::kTuple || all.back().length != 1)
    return nullptr;
  return &tuple(all.back())[0];
}

const Value* Pickle::attributes_of(const Value& opaque) const {
  const auto parts = items(opaque).subspan(kFirstPart);
  // Among the first: more could be one dict a million times.
  for (const Value& part : parts.first(std::min<size_t>(parts.size(), 8))) {
    if (part.kind == Kind::kDict) return &part;
  }
  return nullptr;
}

bool Tensor::is_dense() const {
  if (std::find(shape.begin(), shape.end(), 0) != shape.end()) return true;
  uint64_t stride = 1;
  for (size_t d = shape.size(); d-- > 0;) {
    if (shape[d] == 1) continue;
    if (strides[d] != stride) return false;
    stride *= shape[d];
  }
  return true;
}

std::string_view name_of(Kind kind) {
  constexpr std::string_view kNames[] = {"None",          "a bool",
                                         "an integer",    "a float",
                                         "a string",      "a list",
                                         "a tuple",       "a dict",
                                         "a global",      "a storage",
                                         "a tensor",      "nothing",
                                         "another value", "an object of a class"};
  return kNames[static_cast<size_t>(kind)];
}

Result<Pickle> read_pickle(std::string_view bytes, uint64_t begin, const PickleRules& rules) {
  if (begin >= bytes.size()) return ends_early();
  return Machine(bytes, begin, rules).run();
}

}  // namespace crossdock::torch_read
