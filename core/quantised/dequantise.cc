// SPDX-License-Identifier: Apache-2.0
#include "core/quantised/dequantise.h"

#include "core/base/text.h"
#include "core/model/config.h"
#include "core/quantised/schemes.h"
#include "core/rules/parts.h"
#include "core/rules/renumber.h"

#include <algorithm>
#include <map>

namespace crossdock::quantised {

using manifest::DType;
using manifest::Kind;
using manifest::Manifest;
using manifest::Tensor;
using transform::Expression;

namespace {

// What config.json names, else that of the first plain weight.
DType result_type(std::optional<DType> wanted, const Manifest& m) {
  if (wanted) return *wanted;
  for (const char* key : {"dtype", "torch_dtype"}) {
    const std::string* name = model::text_of(model::config_value(m, key));
    if (!name) continue;
    if (*name == "bfloat16") return DType::BF16;
    if (*name == "float16") return DType::F16;
    if (*name == "float32") return DType::F32;
  }
  for (const Tensor& t : m.tensors) {
    const bool is_plain = t.dtype == DType::BF16 || t.dtype == DType::F16;
    if (is_plain && t.shape.size() >= 2) return t.dtype;
  }
  return DType::BF16;
}

// Scales and zeros of activations and of caches, which quantised inference uses.
bool is_of_activations(const std::string& name) {
  constexpr std::string_view kWhose[] = {"input",       "activation", "output", "prob",
                                         "prob_output", "k",          "v",      "q"};
  constexpr std::string_view kWhat[] = {"scale", "scale_inv", "scale_ub", "global_scale",
                                        "zero_point"};
  constexpr std::string_view kOthers[] = {"qscale_act", "gate_up_proj_input_scale",
                                          "down_proj_input_scale"};
  const std::string_view leaf = base::leaf(name);
  for (const std::string_view whose : kWhose) {
    if (leaf.starts_with(whose) && leaf.size() > whose.size() && leaf[whose.size()] == '_' &&
        base::is_one_of(leaf.substr(whose.size() + 1), kWhat))
      return true;
  }
  return base::is_one_of(leaf, kOthers);
}

// A scheme, and the quant_method under which config.json knows it.
struct Scheme {
  Found (*find)(const Parts&, uint64_t);
  std::vector<std::string_view> methods;
};
const std::vector<Scheme>& schemes() {
  static const std::vector<Scheme> all{
      {find_bitsandbytes, {"bitsandbytes"}},
      {find_block_scaled, {"fp8", "mxfp8"}},
      {find_scaled, {"compressed-tensors", "modelopt", "fbgemm_fp8", "fp8"}},
      {find_packed, {"compressed-tensors"}},
      {find_mxfp4, {"mxfp4"}},
      {find_gptq, {"gptq", "awq"}}};
  return all;
}

class Dequantiser {
 public:
  Dequantiser(const Manifest& m, const std::vector<Expression>& made, const rules::ReadTensor& read,
              DType result)
      : m_(m), parts_(m, made, read, result), used_(m.tensors.size()) {}

  Result<void> find() {
    bool is_as_told = false, is_known = false;
    for (const Scheme& scheme : schemes())
      is_known = is_known || base::is_one_of(parts_.config().method, scheme.methods);
    for (uint64_t i = 0; i < m_.tensors.size(); ++i) {
      if (!m_.tensors[i].excluded.empty()) continue;
      XD_TRY(refuse_changed(i));
      for (const Scheme& scheme : schemes()) {
        auto found = scheme.find(parts_, i);
        if (!found)
          return std::move(found).error().in(cat("tensor ", base::printable(m_.tensors[i].name)));
        if (!*found) continue;
        XD_TRY(take(i, **std::move(found)));
        is_as_told = is_as_told || base::is_one_of(parts_.config().method, scheme.methods);
        break;
      }
    }
    if (!any()) return {};
    if (const std::string& what = parts_.config().unreadable; !what.empty())
      return unsupported(cat("expected a quantisation that crossdock reads, found ", what,
                             " in config.json: convert from the model's bf16 or fp32 release"));
    if (is_known && !is_as_told)
      return invalid(cat("expected weights quantised by ", parts_.config().method,
                         ", as config.json says, found only ", weights_.begin()->second.scheme,
                         ": is the config.json of another model?"));
    return {};
  }

  bool any() const { return !weights_.empty(); }

  // The new tensors, the place of each old one that stays as it was, and what was done.
  std::vector<Expression> tensors(std::vector<Tensor>& out,
                                  std::vector<std::optional<uint64_t>>& places) {
    std::vector<Expression> expressions;
    places.assign(m_.tensors.size(), std::nullopt);
    for (uint64_t i = 0; i < m_.tensors.size(); ++i) {
      if (const auto weight = weights_.find(i); weight != weights_.end()) {
        out.push_back(tensor_of(i, weight->second));
        expressions.push_back(std::move(weight->second.values));
        continue;
      }
      if (used_[i]) continue;
      places[i] = out.size();
      out.push_back(m_.tensors[i]);
      if (out.back().excluded.empty() && is_of_activations(out.back().target()))
        out.back().excluded = "belongs to quantised activations, which the job does not have";
      expressions.push_back(parts_.expression(i));
    }
    return expressions;
  }

  // "252 weights were dequantised to BF16: 250 FP8 in blocks of 128x128, ..."
  std::string note() const {
    std::map<std::string, size_t> schemes;
    for (const auto& [codes, weight] : weights_) ++schemes[weight.scheme];
    std::string out;
    for (const auto& [scheme, n] : schemes) out += cat(out.empty() ? "" : ", ", n, " of ", scheme);
    return cat(weights_.size(), " weights were dequantised to ", manifest::name(parts_.result()),
               ": ", out, ".");
  }

 private:
  // What changes a weight beyond its codes and scales.
  Result<void> refuse_changed(uint64_t i) const {
    constexpr std::string_view kChanges[] = {"pre_quant_scale", "svdquant_lora_a",
                                             "svdquant_lora_b"};
    const std::string& name = m_.tensors[i].target();
    if (!base::is_one_of(base::leaf(name), kChanges)) return {};
    return unsupported(cat("expected weights that codes and scales make, found ",
                           base::printable(name),
                           ", which changes them too: convert from the model's bf16 or fp32 "
                           "release"));
  }

  Result<void> take(uint64_t codes, Weight weight) {
    for (const uint64_t i : weight.of) used_[i] = true;
    const auto there = parts_.find(weight.name);
    const auto [of, is_new] = names_.emplace(weight.name, there.value_or(codes));
    if (!is_new || of->second != codes)
      return invalid(cat("expected one tensor for ", base::printable(weight.name), ", found ",
                         base::printable(m_.tensors[of->second].name), " and ",
                         base::printable(m_.tensors[codes].name)));
    weights_.emplace(codes, std::move(weight));
    return {};
  }

  Tensor tensor_of(uint64_t codes, const Weight& weight) const {
    auto of = weight.of;
    std::sort(of.begin(), of.end());
    Tensor out = rules::joined_source(m_, of);
    out.name = m_.tensors[codes].name;
    out.set_target(weight.name);
    out.dtype = weight.values.root().dtype;
    out.shape = weight.values.root().shape;
    return out;
  }

  const Manifest& m_;
  const Parts parts_;
  std::vector<bool> used_;
  std::map<uint64_t, Weight> weights_;     // by their codes
  std::map<std::string, uint64_t> names_;  // of weights: the codes, or a tensor in their way
};

}  // namespace

Result<Dequantised> dequantise(std::optional<DType> wanted, const rules::ReadTensor& read,
                               const std::vector<Expression>& made, std::span<const Tensor> stored,
                               Manifest& m) {
  Dequantised out;
  std::vector<Tensor> tensors;
  std::vector<std::optional<uint64_t>> places;
  {
    Dequantiser dequantiser(m, made, read, result_type(wanted, m));
    XD_TRY(dequantiser.find());
    if (!dequantiser.any()) return out;
    out.notes.push_back(dequantiser.note());
    out.expressions = dequantiser.tensors(tensors, places);
  }
  for (uint64_t i = 0; i < tensors.size(); ++i)
    transform::describe(out.expressions[i],
                        made.empty() ? std::span<const Tensor>(m.tensors) : stored, tensors[i]);
  XD_TRY_SET(out.before, rules::replace_tensors(places, std::move(tensors), m));
  return out;
}

}  // namespace crossdock::quantised
