#include "core/convert/plain_weights.h"

#include "core/convert/tensor_source.h"
#include "core/quantised/dequantise.h"

#include <crossdock/config_text.hpp>

#include <span>

namespace crossdock::convert {

using manifest::DType;
using manifest::Manifest;

namespace {

constexpr uint64_t kMaxConfigBytes = 64 << 20;

const std::vector<std::string>& quantisation_keys() {
  static const std::vector<std::string> keys{"quantization_config", "compression_config"};
  return keys;
}

void forget_quantisation(manifest::Value& config) {
  auto* map = std::get_if<manifest::ValueMap>(&config.kind);
  if (!map) return;
  for (const std::string& key : quantisation_keys())
    std::erase_if(map->entries, [&](const auto& entry) { return entry.key == key; });
  for (auto& entry : map->entries) {
    if (entry.key == "text_config") forget_quantisation(entry.value);
  }
}

// The text that is written says the same.
Result<void> change_config(OpenModel& source, std::optional<DType> dtype, Manifest& m) {
  forget_quantisation(m.source.config);
  for (manifest::AuxFile& file : m.aux_files) {
    const uint64_t size = source.aux_size(file);
    if (file.kind != manifest::AuxKind::kConfig || size > kMaxConfigBytes) continue;
    std::string text(size, '\0');
    XD_TRY(source.read_aux(file, 0, std::as_writable_bytes(std::span(text))));
    text = without_members(text, quantisation_keys());
    if (dtype)
      text = with_dtype(text, *dtype == DType::BF16  ? "bfloat16"
                              : *dtype == DType::F16 ? "float16"
                                                     : "float32");
    file.content = manifest::Bytes{std::move(text)};
  }
  return {};
}

}  // namespace

std::optional<DType> dequant_dtype(const std::string& given) {
  if (given == "bf16") return DType::BF16;
  if (given == "fp16") return DType::F16;
  if (given == "fp32") return DType::F32;
  return std::nullopt;
}

Result<void> make_plain(OpenModel& source, std::optional<DType> dtype, rules::LaidOut& laid_out,
                        Manifest& m) {
  Manifest plain = m;
  std::span<const manifest::Tensor> stored = laid_out.stored;
  if (laid_out.stored.empty()) stored = m.tensors;
  XD_TRY_SET(auto made,
             quantised::dequantise(dtype, reader_of(source), laid_out.expressions, stored, plain));
  if (made.expressions.empty()) return {};
  XD_TRY(change_config(source, dtype, plain));
  if (laid_out.stored.empty()) laid_out.stored = std::move(m.tensors);
  laid_out.expressions = std::move(made.expressions);
  laid_out.notes.insert(laid_out.notes.end(), made.notes.begin(), made.notes.end());
  m = std::move(plain);
  return {};
}

}  // namespace crossdock::convert
