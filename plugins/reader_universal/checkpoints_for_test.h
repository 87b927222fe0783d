// SPDX-License-Identifier: Apache-2.0

// Whole checkpoints in a host in memory, and what the linked reader makes of them.
#pragma once

#include "plugins/reader_universal/recipes_for_test.h"
#include "tests/support/plugin_checks.h"

#include <functional>

namespace crossdock::reader_universal::recipe {

inline void put(test::MemoryHost& host, const Universal& recipe,
                const std::string& folder = "step7/") {
  host.inputs["latest_universal"] = "step7";
  for (const auto& [name, bytes] : recipe.files()) host.inputs[folder + name] = bytes;
}

// The message of the refusal, or "read".
inline std::string outcome(test::MemoryHost& host, const test::OptionValues& options = {}) {
  const auto reader = test::open(host, options);
  return reader ? "read" : reader.error().message;
}

// Of a checkpoint of stage 2 in which a file is another one; empty: it is not there.
inline std::string with(const std::string& name, const std::string& bytes,
                        const Universal& recipe = {}) {
  test::MemoryHost host;
  put(host, recipe);
  host.inputs["step7/" + name] = bytes;
  if (bytes.empty()) host.inputs.erase("step7/" + name);
  return outcome(host);
}
inline std::string of(const std::function<void(Universal&)>& change, Universal recipe = {}) {
  change(recipe);
  test::MemoryHost host;
  put(host, recipe);
  return outcome(host);
}

using Values = std::map<std::string, std::string>;
// Of each tensor as it is stored.
inline Values values_of(const test::OpenReader& reader) {
  Values out;
  const auto& tensors = reader.manifest.tensors;
  for (uint64_t i = 0; i < tensors.size(); ++i) {
    const auto& t = tensors[i];
    const uint64_t n = t.strides.empty() ? *checked_product(t.shape) : t.storage_elements;
    const auto values = reader.read(dense_range(i, 0, n), 4 * n);
    out[t.name] = values ? *values : values.error().message;
  }
  return out;
}

inline const manifest::Tensor& find(const manifest::Manifest& m, std::string_view name) {
  for (const auto& t : m.tensors) {
    if (t.name == name) return t;
  }
  FAIL("no such tensor");
  return m.tensors[0];
}
inline const manifest::Value* metadata(const manifest::Manifest& m, std::string_view key) {
  for (const auto& entry : m.source.metadata) {
    if (entry.key == key) return &entry.value;
  }
  return nullptr;
}
inline int64_t number_in(const manifest::Manifest& m, std::string_view key) {
  const auto* v = metadata(m, key);
  return v && v->get<int64_t>() ? *v->get<int64_t>() : -1;
}
inline std::string names_in(const manifest::Manifest& m) {
  std::string out;
  for (const auto& t : m.tensors) out += (out.empty() ? "" : " ") + t.name;
  return out;
}

}  // namespace crossdock::reader_universal::recipe
