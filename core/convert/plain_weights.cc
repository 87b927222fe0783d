// SPDX-License-Identifier: Apache-2.0
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

// ModelOpt's older exports say it in a file of their own.
void tell_modelopt(const OpenModel& source, Manifest& m) {
  auto* map = std::get_if<manifest::ValueMap>(&m.source.config.kind);
  if (!map || map->find(quantisation_keys()[0]) || !source.input().find("hf_quant_config.json"))
    return;
  manifest::Value method, config;
  method.kind = std::string("modelopt");
  config.kind = manifest::ValueMap{{{"quant_method", std::move(method)}}};
  map->entries.push_back({quantisation_keys()[0], std::move(config)});
}

// config.json's text without the quantisation, and with the type that was asked for; empty: none.
Result<std::string> plain_text(OpenModel& source, std::optional<DType> dtype,
                               const manifest::AuxFile& file) {
  const uint64_t size = source.aux_size(file);
  if (file.kind != manifest::AuxKind::kConfig || size > kMaxConfigBytes) return std::string();
  std::string text(size, '\0');
  XD_TRY(source.read_aux(file, 0, std::as_writable_bytes(std::span(text))));
  text = without_members(text, quantisation_keys());
  if (!dtype) return text;
  return with_dtype(text, *dtype == DType::BF16  ? "bfloat16"
                          : *dtype == DType::F16 ? "float16"
                                                 : "float32");
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
  std::vector<std::string> texts;
  for (const manifest::AuxFile& file : m.aux_files) {
    XD_TRY_SET(std::string text, plain_text(source, dtype, file));
    texts.push_back(std::move(text));
  }
  const manifest::Value config = m.source.config;
  tell_modelopt(source, m);
  auto made =
      quantised::dequantise(dtype, reader_of(source), laid_out.expressions, laid_out.stored, m);
  m.source.config = config;
  if (!made) return std::move(made).error();
  if (made->expressions.empty()) return {};
  if (laid_out.expressions.empty()) laid_out.stored = std::move(made->before);
  laid_out.expressions = std::move(made->expressions);
  laid_out.notes.insert(laid_out.notes.end(), made->notes.begin(), made->notes.end());
  forget_quantisation(m.source.config);
  for (size_t i = 0; i < texts.size(); ++i) {
    if (!texts[i].empty()) m.aux_files[i].content = manifest::Bytes{std::move(texts[i])};
  }
  return {};
}

}  // namespace crossdock::convert
