// SPDX-License-Identifier: Apache-2.0
#include "core/base/text.h"
#include "core/model/check.h"
#include "core/model/config.h"
#include "core/model/refusals.h"

#include <algorithm>
#include <unordered_map>

namespace crossdock::model {

using base::leaf;
using manifest::Kind;
using manifest::Manifest;
using manifest::Tensor;

namespace {

// What the methods leave beside their codes, and what they call the codes themselves, which are
// integers.
struct Part {
  std::string_view leaf, method;
  // A name that others may use too counts only beside this one of the same module: the codes, or
  // what is left with them.
  std::string_view codes = {};
};
constexpr Part kParts[] = {
    {"qweight", "GPTQ or AWQ"},
    {"qzeros", "GPTQ or AWQ"},
    {"g_idx", "GPTQ"},
    {"weight_scale", "FP8 or compressed-tensors"},
    {"weight_scale_inv", "FP8"},
    {"weight_scale_2", "ModelOpt"},
    {"weight_packed", "compressed-tensors"},
    {"weight_zero_point", "compressed-tensors"},
    {"weight_shape", "compressed-tensors"},
    {"weight_global_scale", "compressed-tensors"},
    {"absmax", "bitsandbytes"},
    {"nested_absmax", "bitsandbytes"},
    {"quant_map", "bitsandbytes"},
    {"SCB", "bitsandbytes"},
    {"q_scale", "EXL2", "q_weight"},
    {"codebooks", "AQLM", "codes"},
};
constexpr Part kCodes[] = {{"W_q", "HQQ"},
                           {"q_weight", "EXL2"},
                           {"trellis", "EXL3"},
                           {"Qidxs", "QuIP#"},
                           {"_data", "quanto"},
                           {"dense_weights", "SpQR"},
                           {"codes", "AQLM", "codebooks"},
                           {"indices", "VPTQ", "centroids.weight"},
                           {"B", "Marlin", "s"},
                           {"blocks", "MXFP4", "scales"},
                           {"packed", "a packed format", "scale"}};

// Of a tensor that rules made of others, the one that they gave it.
const std::string& name_of(const Tensor& t) { return t.expression.empty() ? t.name : t.target(); }

bool is_integer(const Tensor& t) { return manifest::info(t.dtype).kind == Kind::kInteger; }

using Tensors = std::unordered_map<std::string_view, const Tensor*>;  // by name

// The method whose part or codes a tensor is by its name; empty for other tensors.
std::string_view method_of(const Tensor& t, const Tensors& tensors) {
  const std::string& whole = name_of(t);
  const std::string_view name = leaf(whole);
  const std::string module = whole.substr(0, whole.size() - name.size());
  const auto is_called = [&](const Part& part) { return part.leaf == name; };
  if (const auto it = std::find_if(std::begin(kParts), std::end(kParts), is_called);
      it != std::end(kParts)) {
    const auto codes = tensors.find(cat(module, it->codes));
    if (it->codes.empty() || (codes != tensors.end() && is_integer(*codes->second)))
      return it->method;
  }
  const auto it = std::find_if(std::begin(kCodes), std::end(kCodes), is_called);
  const bool is_code = it != std::end(kCodes) && is_integer(t) && t.shape.size() >= 2;
  if (is_code && (it->codes.empty() || tensors.contains(cat(module, it->codes)))) return it->method;
  return whole.find(".quant_state.") != std::string::npos ? "bitsandbytes" : std::string_view();
}

// Masks, ids and counters, which are integers by nature.
bool is_index_like(const Tensor& t) {
  constexpr std::string_view kWords[] = {"mask", "ids", "index", "indices", "bias"};
  const std::string_view name = leaf(name_of(t));
  return base::is_one_of(name.substr(name.rfind('_') + 1), kWords);
}

// Integers of two or more dimensions under the name of a matrix.
bool is_integer_matrix(const Tensor& t) {
  constexpr std::string_view kMatrices[] = {"kernel", "embedding", "w1", "w2", "w3"};
  if (!is_integer(t) || t.shape.size() < 2 || is_index_like(t)) return false;
  const std::string_view name = leaf(name_of(t));
  return name.find("weight") != std::string_view::npos || name.ends_with("_proj") ||
         base::is_one_of(name, kMatrices);
}

// What tells by type or name that a tensor holds codes, or belongs to some; empty when nothing
// does.
std::string named_sign(const Tensor& t, const Tensors& tensors) {
  const Kind kind = manifest::info(t.dtype).kind;
  const std::string tensor = cat("tensor ", base::printable(t.name));
  if (kind == Kind::kFloat8 || kind == Kind::kSubByte)
    return cat(tensor, " of type ", manifest::name(t.dtype), " without a scale beside it (",
               base::printable(name_of(t)), "_scale_inv, _scale)");
  std::string_view method = method_of(t, tensors);
  const std::string& name = name_of(t);
  const bool is_bytes = t.dtype == manifest::DType::U8 && t.shape.size() >= 3;
  if (is_bytes && (name.ends_with("_blocks") || name.ends_with("_scales"))) method = "MXFP4";
  return method.empty()
             ? ""
             : cat(tensor, ", which a quantisation method left beside its codes (", method, ')');
}

// The same by integers where a matrix should be.
std::string integer_sign(const Tensor& t, const Tensors& tensors) {
  if (!is_integer_matrix(t)) return {};
  const std::string& name = name_of(t);
  const std::string before = name.substr(0, name.size() - leaf(name).size());
  const bool is_mlx = tensors.contains(before + "scales") && tensors.contains(before + "biases");
  return cat("tensor ", base::printable(t.name), " of type ", manifest::name(t.dtype),
             ", whose integers are codes of a quantisation", is_mlx ? " (MLX)" : "");
}

// The first sign of all tensors: a name that only one method uses says more than integers do.
std::string sign_of_codes(const Manifest& m) {
  Tensors tensors;
  for (const Tensor& t : m.tensors) {
    if (t.excluded.empty()) tensors.emplace(name_of(t), &t);
  }
  for (const auto sign : {named_sign, integer_sign}) {
    for (const Tensor& t : m.tensors) {
      if (!t.excluded.empty()) continue;
      if (std::string found = sign(t, tensors); !found.empty()) return found;
    }
  }
  return {};
}

Error quantised(const std::string& what) {
  return unsupported(
      cat("expected plain weights, or codes with all that belongs to them, found ", what,
          ": convert from the model's bf16 or fp32 release, or from what the method's own library "
          "dequantises"));
}

}  // namespace

bool has_integer_values(const Manifest& m) {
  return std::any_of(m.tensors.begin(), m.tensors.end(), [](const Tensor& t) {
    return t.excluded.empty() && is_integer(t) && !t.shape.empty() && !is_index_like(t);
  });
}

Result<void> refuse_quantised(const Manifest& m) {
  const std::string sign = sign_of_codes(m);
  const bool has_integers = has_integer_values(m);
  const manifest::Value* value = config_value(m, "quantization_config");
  if (!value) return sign.empty() ? Result<void>() : quantised(sign);
  const auto* map = value->get<manifest::ValueMap>();
  const std::string* name = text_of(map ? map->find("quant_method") : nullptr);
  const std::string config = cat("config.json with quantization_config",
                                 name ? " \"" + base::printable(*name) + '"' : std::string());
  if (!sign.empty()) return quantised(cat(config, ", and ", sign));
  if (has_integers) return quantised(config);
  return unsupported(
      cat("expected plain weights, found ", config,
          ", though every tensor is plain: if the model was "
          "merged or dequantised since, take quantization_config out of config.json"));
}

}  // namespace crossdock::model
