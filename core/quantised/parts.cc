// SPDX-License-Identifier: Apache-2.0
#include "core/quantised/parts.h"

#include "core/base/text.h"
#include "core/model/check.h"
#include "core/model/config.h"

#include <cstring>

namespace crossdock::quantised {

using manifest::DType;
using manifest::Tensor;
using manifest::Value;
using manifest::ValueMap;

namespace {

const Value* member(const ValueMap* map, std::string_view key) {
  return map ? map->find(key) : nullptr;
}

void add_number(const ValueMap* map, std::string_view key, std::vector<uint64_t>& out) {
  if (const auto number = model::number_of(member(map, key))) out.push_back(*number);
}

// Layouts whose tensors have the names and shapes of others, and are read otherwise.
std::string unreadable(const ValueMap* map) {
  const auto text = [&](std::string_view key) {
    const std::string* found = model::text_of(member(map, key));
    return found ? *found : std::string();
  };
  const std::string format = text("checkpoint_format");
  if (!format.empty() && format != "gptq" && format != "gptq_v2" && format != "gemm")
    return cat("checkpoint_format ", format);
  const std::string version = text("version");
  if (text("quant_method") == "awq" && !version.empty() && version != "gemm" && version != "GEMM")
    return cat("AWQ's version ", version);
  const auto holds = [&](std::string_view key) -> const ValueMap* {
    const Value* value = member(map, key);
    const auto* inner = value ? value->get<ValueMap>() : nullptr;
    return inner && !inner->entries.empty() ? inner : nullptr;
  };
  if (holds("transform_config")) return "compressed-tensors' transform_config (rotated weights)";
  const std::string* sparsity = model::text_of(member(holds("sparsity_config"), "format"));
  return sparsity && *sparsity != "dense" ? cat("compressed-tensors' sparsity ", *sparsity) : "";
}

Config config_of(const manifest::Manifest& m) {
  Config out;
  const Value* value = model::config_value(m, "quantization_config");
  if (!value) value = model::config_value(m, "compression_config");  // of older releases
  const auto* map = value ? value->get<ValueMap>() : nullptr;
  if (!map) return out;
  const auto text = [&](std::string_view key) {
    const std::string* found = model::text_of(member(map, key));
    return found ? *found : std::string();
  };
  out.method = text("quant_method");
  out.checkpoint_format = text("checkpoint_format");
  add_number(map, "bits", out.bits);
  add_number(map, "w_bit", out.bits);  // of AWQ
  add_number(map, "group_size", out.group_sizes);
  add_number(map, "q_group_size", out.group_sizes);
  const Value* meta = member(map, "meta");
  const Value* writer = member(meta ? meta->get<ValueMap>() : nullptr, "quantizer");
  if (const auto* list = writer ? writer->get<manifest::ValueList>() : nullptr;
      list && !list->values.empty()) {
    const std::string* name = model::text_of(&list->values[0]);
    out.is_of_gptqmodel = name && name->starts_with("gptqmodel");
  }
  out.unreadable = unreadable(map);
  const Value* block = member(map, "weight_block_size");
  if (const auto* list = block ? block->get<manifest::ValueList>() : nullptr) {
    for (const Value& side : list->values) out.block.push_back(model::number_of(&side).value_or(0));
  }
  if (out.block.size() != 2) out.block.clear();
  const Value* groups = member(map, "config_groups");
  if (const auto* named = groups ? groups->get<ValueMap>() : nullptr) {
    for (const auto& group : named->entries) {
      const auto* inner = group.value.get<ValueMap>();
      const Value* weights = member(inner, "weights");
      const auto* arguments = weights ? weights->get<ValueMap>() : nullptr;
      add_number(arguments, "num_bits", out.bits);
      add_number(arguments, "group_size", out.group_sizes);
      const Value* structure = member(arguments, "block_structure");
      const auto* sides = structure ? structure->get<manifest::ValueList>() : nullptr;
      if (sides && sides->values.size() == 2 && out.block.empty()) {
        for (const Value& side : sides->values)
          out.block.push_back(model::number_of(&side).value_or(0));
      }
    }
  }
  return out;
}

uint64_t n_blocks(uint64_t n, uint64_t block) { return n / block + (n % block != 0); }

// The side of a block, of which there are so many in n; 0: none fits.
uint64_t side(uint64_t n, uint64_t blocks) {
  if (blocks == 0) return 0;
  if (n % blocks == 0) return n / blocks;
  constexpr uint64_t kUsual[] = {128, 64, 32, 16};
  for (const uint64_t usual : kUsual) {
    if (n_blocks(n, usual) == blocks) return usual;
  }
  return 0;
}

}  // namespace

Parts::Parts(const manifest::Manifest& m, const std::vector<transform::Expression>& made,
             const rules::ReadTensor& read, DType result)
    : m_(m), made_(made), read_(read), result_(result), config_(config_of(m)) {
  for (uint64_t i = 0; i < m.tensors.size(); ++i) {
    if (m.tensors[i].excluded.empty()) by_name_.emplace(m.tensors[i].target(), i);
  }
}

std::optional<uint64_t> Parts::find(const std::string& name) const {
  const auto it = by_name_.find(name);
  return it == by_name_.end() ? std::nullopt : std::optional(it->second);
}

Result<uint64_t> Parts::need(const std::string& name, uint64_t of) const {
  if (const auto found = find(name)) return *found;
  return corrupt(cat("expected ", base::printable(name), " beside its codes of type ",
                     manifest::name(tensor(of).dtype),
                     ", found none: the model is incomplete, or its shards are not all there"));
}

transform::Expression Parts::expression(uint64_t i) const {
  return made_.empty() ? transform::stored_tensor(i, m_.tensors[i]) : made_[i];
}

Result<std::string> Parts::bytes(uint64_t i) const {
  constexpr uint64_t kMax = 16 << 20;
  const Tensor& t = tensor(i);
  const uint64_t size = model::value_bytes(t);
  const auto* stored = made_.empty() ? nullptr : made_[i].as_stored();
  if (size > kMax || !t.strides.empty() || (!made_.empty() && !stored))
    return unsupported(cat("expected a small dense tensor, found ", base::printable(t.name), " of ",
                           base::human_bytes(size)));
  std::string out(size, '\0');
  XD_TRY(read_(stored ? stored->tensor : i, model::element_count(t),
               std::as_writable_bytes(std::span(out))));
  return out;
}

Result<std::vector<float>> Parts::floats(uint64_t i) const {
  if (tensor(i).dtype != DType::F32)
    return invalid(cat("expected ", base::printable(tensor(i).name), " of type F32, found ",
                       manifest::name(tensor(i).dtype)));
  XD_TRY_SET(const std::string raw, bytes(i));
  std::vector<float> out(raw.size() / sizeof(float));
  std::memcpy(out.data(), raw.data(), out.size() * sizeof(float));
  return out;
}

Result<std::vector<int64_t>> Parts::integers(uint64_t i) const {
  const DType dtype = tensor(i).dtype;
  if (dtype != DType::I32 && dtype != DType::I64)
    return invalid(cat("expected ", base::printable(tensor(i).name), " of type I32 or I64, found ",
                       manifest::name(dtype)));
  XD_TRY_SET(const std::string raw, bytes(i));
  const size_t size = dtype == DType::I32 ? 4 : 8;
  std::vector<int64_t> out;
  for (size_t at = 0; at + size <= raw.size(); at += size) {
    int64_t value = 0;
    std::memcpy(&value, raw.data() + at, size);
    out.push_back(size == 4 ? int64_t{static_cast<int32_t>(value)} : value);
  }
  return out;
}

Matrices matrices_of(std::span<const uint64_t> shape) {
  Matrices out;
  if (shape.empty()) return out;
  out.columns = shape.back();
  if (shape.size() > 1) out.rows = shape[shape.size() - 2];
  for (size_t i = 0; i + 2 < shape.size(); ++i) out.count *= shape[i];
  return out;
}

Result<transform::Dequantisation> by_blocks(std::shared_ptr<const transform::Decoder> decoder,
                                            const Matrices& codes, std::span<const uint64_t> scales,
                                            std::span<const uint64_t> told) {
  const auto [count, rows, columns] = codes;
  const uint64_t n = *checked_product(scales);
  const Matrices grid = matrices_of(scales);
  transform::Dequantisation out;
  out.decoder = std::move(decoder);
  out.rows = out.block_rows = rows;
  out.columns = out.block_columns = columns;
  if (n == count) return out;  // one for each matrix
  if (n == 1) {
    out.rows = out.block_rows = count * rows;
    return out;
  }
  if (scales.size() == 1 && count == 1 && n == rows) {
    out.block_rows = 1;
    return out;
  }
  if (scales.size() >= 2 && grid.count == count) {
    const bool is_told = told.size() == 2 && told[0] > 0 && told[1] > 0 &&
                         n_blocks(rows, told[0]) == grid.rows &&
                         n_blocks(columns, told[1]) == grid.columns;
    out.block_rows = is_told ? told[0] : side(rows, grid.rows);
    out.block_columns = is_told ? told[1] : side(columns, grid.columns);
    if (out.block_rows > 0 && out.block_columns > 0) return out;
  }
  return invalid(cat("expected scales for blocks of ", count == 1 ? "" : cat(count, " x "), rows,
                     " x ", columns, " codes, found ", base::list_text(scales)));
}

}  // namespace crossdock::quantised
