// SPDX-License-Identifier: Apache-2.0

// What the fuzzer of quantised models makes of bytes: a few tensors, whose names, types and sizes
// are those that the schemes look for, with a config. Each choice is a byte, so that any bytes are
// some model; and back, for the first inputs.
#pragma once

#include <crossdock/manifest_wire.hpp>

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <vector>

namespace crossdock::fuzz {

inline constexpr auto kModules = std::to_array<std::string_view>({"a.", "b.", "a.experts.", ""});
inline constexpr auto kLeaves =
    std::to_array<std::string_view>({"weight",
                                     "weight_scale",
                                     "weight_scale_inv",
                                     "weight_scale_2",
                                     "weight_packed",
                                     "weight_shape",
                                     "weight_zero_point",
                                     "weight_g_idx",
                                     "weight_global_scale",
                                     "scale",
                                     "qscale_weight",
                                     "w_blocks",
                                     "w_scales",
                                     "weight.absmax",
                                     "weight.quant_map",
                                     "weight.nested_absmax",
                                     "weight.nested_quant_map",
                                     "weight.quant_state.bitsandbytes__nf4",
                                     "weight.quant_state.bitsandbytes__fp4",
                                     "SCB",
                                     "weight_format",
                                     "qweight",
                                     "qzeros",
                                     "scales",
                                     "g_idx",
                                     "input_scale",
                                     "bias",
                                     "weight_packed_scale"});
inline constexpr auto kSizes = std::to_array<uint64_t>(
    {1,        2,          4,          3,          8,          16,         0,          5,
     7,        9,          24,         32,         64,         128,        512,        4096,
     1u << 20, 1ull << 31, 1ull << 40, 1ull << 55, 1ull << 61, 1ull << 62, 1ull << 63, UINT64_MAX});
inline constexpr auto kMethods = std::to_array<std::string_view>(
    {"", "fp8", "compressed-tensors", "modelopt", "gptq", "awq", "bitsandbytes", "mxfp4"});

struct Part {
  std::string name;
  manifest::DType dtype = manifest::DType::UNSPECIFIED;
  std::vector<uint64_t> shape = {};
  std::string content = {};  // which repeats
  bool is_turned = false;    // strides of a transposed tensor
  bool is_expanded = false;  // the first stride is 0
  bool is_as_long = false;   // one dimension: all of the content
};

struct Model {
  std::string_view method = {};
  uint64_t bits = 0, group = 0, block = 0;  // as config.json tells them; 0: it does not
  bool is_gptq_v2 = false;
  bool is_made = false;  // the tensors are expressions already
  uint8_t wanted = 0, count = 0;
  std::vector<Part> parts = {};
};

inline constexpr size_t kMaxParts = 12;

// ---- from bytes

class Choices {
 public:
  explicit Choices(std::string_view bytes) : bytes_(bytes) {}
  bool done() const { return bytes_.empty(); }
  uint8_t byte() {
    if (bytes_.empty()) return 0;
    const auto out = static_cast<uint8_t>(bytes_[0]);
    bytes_.remove_prefix(1);
    return out;
  }
  template <class Alphabet>
  auto one_of(const Alphabet& all) {
    return all[byte() % all.size()];
  }
  std::string text(size_t n) {
    const std::string out(bytes_.substr(0, n));
    bytes_.remove_prefix(out.size());
    return out;
  }

 private:
  std::string_view bytes_;
};

inline Model model_of(std::string_view bytes) {
  Choices in(bytes);
  Model out;
  out.method = in.one_of(kMethods);
  out.bits = in.byte() % 16;
  out.group = in.one_of(kSizes);
  out.block = in.one_of(kSizes);
  const uint8_t flags = in.byte();
  out.is_gptq_v2 = flags & 1;
  out.is_made = flags & 2;
  out.wanted = in.byte() % 4;
  out.count = in.byte();
  while (!in.done() && out.parts.size() < kMaxParts) {
    Part& part = out.parts.emplace_back();
    part.name = in.one_of(kModules);
    part.name += in.one_of(kLeaves);
    part.dtype = static_cast<manifest::DType>(in.byte() % manifest::kDTypes.size());
    const uint8_t form = in.byte();
    part.is_turned = form & 8;
    part.is_expanded = form & 16;
    part.is_as_long = form & 32;
    for (int i = 0; i < (form & 7) % 6; ++i) part.shape.push_back(in.one_of(kSizes));
    part.content = in.text(in.byte());
  }
  return out;
}

// ---- to bytes

template <class Alphabet, class Value>
char choice(const Alphabet& all, const Value& value) {
  return static_cast<char>(std::find(all.begin(), all.end(), value) - all.begin());
}

// Of names and sizes that there are choices of.
inline std::string bytes_of(const Model& model) {
  std::string out{choice(kMethods, model.method),
                  static_cast<char>(model.bits),
                  choice(kSizes, model.group),
                  choice(kSizes, model.block),
                  static_cast<char>(model.is_gptq_v2 + 2 * model.is_made),
                  static_cast<char>(model.wanted),
                  static_cast<char>(model.count)};
  for (const Part& part : model.parts) {
    const auto at = std::find_if(kModules.begin(), kModules.end(), [&](std::string_view module) {
      return part.name.starts_with(module) &&
             std::count(kLeaves.begin(), kLeaves.end(), part.name.substr(module.size()));
    });
    out += static_cast<char>(at - kModules.begin());
    out += choice(kLeaves, std::string_view(part.name).substr(at->size()));
    out += static_cast<char>(part.dtype);
    out += static_cast<char>(part.shape.size() + 8 * part.is_turned + 16 * part.is_expanded +
                             32 * part.is_as_long);
    for (const uint64_t size : part.shape) out += choice(kSizes, size);
    out += static_cast<char>(part.content.size());
    out += part.content;
  }
  return out;
}

}  // namespace crossdock::fuzz
