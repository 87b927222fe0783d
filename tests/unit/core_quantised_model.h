// SPDX-License-Identifier: Apache-2.0

// Small quantised models, byte by byte.
#pragma once

#include "core/quantised/dequantise.h"
#include "tests/unit/core_test_support.h"

#include <cstring>

namespace crossdock::test {

inline std::string bytes(std::initializer_list<int> values) {
  std::string out;
  for (const int value : values) out += static_cast<char>(value);
  return out;
}
template <class T>
std::string raw(std::initializer_list<T> values) {
  return {reinterpret_cast<const char*>(values.begin()), values.size() * sizeof(T)};
}
inline std::string floats(std::initializer_list<float> values) { return raw<float>(values); }

class QuantisedModel {
 public:
  manifest::Manifest m;
  std::vector<std::string> contents;           // of each stored tensor; missing bytes are zeros
  std::vector<transform::Expression> made;     // of each tensor, or none
  std::vector<transform::Expression> results;  // after become_plain()
  std::vector<std::string> notes;

  QuantisedModel() {
    m.source.format = "f";
    m.source.files = {{"x", uint64_t{1} << 40, ""}};
  }

  QuantisedModel& add(const std::string& name, manifest::DType dtype, std::vector<uint64_t> shape,
                      std::string content = "") {
    m.tensors.push_back(tensor(name, dtype, std::move(shape)));
    m.tensors.back().extents = {{0, 0, uint64_t{1} << 40}};
    contents.push_back(std::move(content));
    return *this;
  }
  // config.json's quantization_config, as pairs of keys and values.
  QuantisedModel& config(const std::vector<std::pair<std::string, manifest::Value>>& entries) {
    manifest::ValueMap map, whole;
    for (const auto& [key, value] : entries) map.entries.push_back({key, value});
    whole.entries.push_back({"quantization_config", {std::move(map)}});
    m.source.config.kind = std::move(whole);
    return *this;
  }

  Result<void> read(uint64_t i, uint64_t begin, uint64_t count, std::span<std::byte> out) const {
    const std::string& content = contents.at(i);
    const manifest::Tensor& t = stored_[i];
    const uint64_t size = manifest::info(t.dtype).bits / 8;
    const uint64_t all = t.strides.empty() ? *checked_product(t.shape) : t.storage_elements;
    if (out.size() != count * size || begin + count > all) FAIL("a read outside of " << t.name);
    for (size_t k = 0; k < out.size(); ++k) {
      const uint64_t at = begin * size + k;
      out[k] = at < content.size() ? static_cast<std::byte>(content[at]) : std::byte{};
    }
    return {};
  }

  // The error's message; empty when there is none. What it must leave as it is, it does.
  std::string become_plain(std::optional<manifest::DType> wanted = manifest::DType::F32) {
    stored_ = m.tensors;
    const manifest::Manifest before = m;
    auto plain = quantised::dequantise(
        wanted,
        [&](uint64_t i, uint64_t n, std::span<std::byte> out) { return read(i, 0, n, out); }, made,
        stored_, m);
    if (!plain || plain->expressions.empty()) CHECK(m == before);
    if (!plain) return plain.error().message;
    results = std::move(plain->expressions);
    notes = std::move(plain->notes);
    if (!results.empty()) CHECK(results.size() == m.tensors.size());
    return {};
  }

  std::string names() const {
    std::string out;
    for (const manifest::Tensor& t : m.tensors) {
      if (t.excluded.empty()) out += (out.empty() ? "" : " ") + t.target();
    }
    return out;
  }
  const manifest::Tensor& of(const std::string& target) const {
    return m.tensors.at(index(target));
  }
  // All values of a tensor of F32.
  std::vector<float> values(const std::string& target) const {
    const auto& e = results.at(index(target));
    std::vector<float> out(*checked_product(e.root().shape));
    std::vector<std::byte> scratch(e.scratch_blocks() * transform::kMinBlock);
    CHECK(e.root().dtype == manifest::DType::F32);
    REQUIRE(e.evaluate(0, std::as_writable_bytes(std::span(out)), scratch,
                       [&](uint64_t i, uint64_t begin, uint64_t count, std::span<std::byte> to) {
                         return read(i, begin, count, to);
                       }));
    return out;
  }

 private:
  size_t index(const std::string& target) const {
    for (size_t i = 0; i < m.tensors.size(); ++i) {
      if (m.tensors[i].target() == target) return i;
    }
    FAIL("no " << target);
    return 0;
  }

  std::vector<manifest::Tensor> stored_;
};

}  // namespace crossdock::test
