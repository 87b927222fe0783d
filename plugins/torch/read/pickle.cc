#include "plugins/torch/read/pickle.h"

#include "plugins/torch/read/machine.h"

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
