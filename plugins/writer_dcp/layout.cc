// SPDX-License-Identifier: Apache-2.0
#include "plugins/writer_dcp/layout.h"

#include <algorithm>
#include <optional>
#include <unordered_map>

#include "plugins/common/quote.h"
#include "plugins/torch/write/pickle_writer.h"
#include "plugins/writer_dcp/torchtitan.h"

namespace crossdock::writer_dcp {
namespace {

using common::in_quotes;
using manifest::Manifest;
using manifest::Tensor;

Result<Entry> entry_of(const Tensor& tensor, uint64_t index, const Settings& settings) {
  XD_TRY_SET(const auto cast, common::cast_tensor(tensor, index, settings.cast));
  if (!torch_write::torch_has(cast.dtype))
    return unsupported(cat("expected an element type that torch has, found ",
                           manifest::name(cast.dtype), ": convert it to plain values first"));
  return Entry{cast, tensor.shape, {tensor.target()}};
}

// Names that are tied to a tensor which is written. The job's module says which they are; without
// it, what the core left out as another name of a tensor that stays.
void add_tied_names(const Manifest& model, std::vector<Entry>& entries) {
  std::unordered_map<uint64_t, Entry*> by_tensor;
  for (Entry& entry : entries) by_tensor.emplace(entry.tensor, &entry);
  const auto add = [&](uint64_t tensor, const std::string& name) {
    const auto it = by_tensor.find(tensor);
    if (it == by_tensor.end() || std::ranges::count(it->second->names, name)) return;
    it->second->names.push_back(name);
  };
  for (const auto& [name, tensor] : model.module) add(tensor, name);
  if (!model.module.empty()) return;
  for (const manifest::AliasGroup& group : model.alias_groups) {
    const auto is_kept = [&](uint64_t i) { return model.tensors[i].excluded.empty(); };
    const auto kept = std::ranges::find_if(group.tensors, is_kept);
    if (kept == group.tensors.end()) continue;
    for (const uint64_t i : group.tensors) {
      if (!is_kept(i)) add(*kept, model.tensors[i].target());
    }
  }
}

Result<void> spell_as_torchtitan(const Manifest& model, std::vector<Entry>& entries) {
  XD_TRY_SET(const auto titan, Torchtitan::of(model.source.config));
  for (Entry& entry : entries) {
    for (std::string& name : entry.names) {
      auto found = titan.find(name, entry.shape);
      if (!found) return std::move(found).error().in(cat("tensor ", in_quotes(name)));
      name = found->name;
      entry.head_rows = found->head_rows;
    }
  }
  return {};
}

// As torch.chunk: pieces of one size, the last ones short or absent. Buffers and scalars are whole:
// FSDP2 shards parameters only.
uint64_t rows_per_shard(const Entry& entry, bool is_whole, uint64_t n_shards) {
  const uint64_t rows = entry.shape.empty() ? 1 : entry.shape[0];
  return is_whole ? rows : rows / n_shards + (rows % n_shards != 0);
}

Result<void> place(Shard& shard, const Entry& entry, Chunk chunk) {
  chunk.offset = shard.n_bytes;
  chunk.n_bytes = archive_of(entry, chunk).size();
  const auto end = checked_add(shard.n_bytes, chunk.n_bytes);
  if (!end) return unsupported("expected tensors of fewer than 2^64 bytes, found more");
  shard.n_bytes = *end;
  shard.chunks.push_back(chunk);
  return {};
}

Result<void> cut(const Manifest& model, size_t index, Layout& layout) {
  const Entry& entry = layout.entries[index];
  const uint64_t rows = entry.shape.empty() ? 1 : entry.shape[0];
  const uint64_t row_elems = rows == 0 ? 0 : entry.n_elems / rows;
  const bool is_whole = entry.shape.empty() || entry.n_elems == 0 ||
                        model.tensors[entry.tensor].role == manifest::Role::kBuffer;
  const uint64_t step = rows_per_shard(entry, is_whole, layout.shards.size());
  for (uint64_t row = 0, i = 0; i == 0 || row < rows; row += step, ++i) {
    const uint64_t n = std::min(step, rows - row);
    XD_TRY(place(layout.shards[i], entry, {index, row, n, row * row_elems, n * row_elems}));
  }
  return {};
}

}  // namespace

Result<Layout> make_layout(const Manifest& model, const Settings& settings) {
  Layout out;
  for (uint64_t i = 0; i < model.tensors.size(); ++i) {
    const Tensor& tensor = model.tensors[i];
    if (!tensor.excluded.empty() || tensor.role == manifest::Role::kOptimizerState) continue;
    auto entry = entry_of(tensor, i, settings);
    if (!entry) return std::move(entry).error().in(cat("tensor ", in_quotes(tensor.name)));
    out.entries.push_back(*std::move(entry));
  }
  add_tied_names(model, out.entries);
  if (settings.profile == Profile::kTorchtitan) XD_TRY(spell_as_torchtitan(model, out.entries));
  out.shards.resize(settings.n_shards);
  for (size_t i = 0; i < out.entries.size(); ++i) XD_TRY(cut(model, i, out));
  // Those behind the last row of every tensor.
  while (out.shards.size() > 1 && out.shards.back().chunks.empty()) out.shards.pop_back();
  for (size_t i = 0; i < out.shards.size(); ++i) out.shards[i].file = cat("__", i, "_0.distcp");
  return out;
}

std::vector<uint64_t> offsets_of(const Entry& entry, const Chunk& chunk) {
  std::vector<uint64_t> out(entry.shape.size());
  if (!out.empty()) out[0] = chunk.first_row;
  return out;
}

std::vector<uint64_t> sizes_of(const Entry& entry, const Chunk& chunk) {
  std::vector<uint64_t> out = entry.shape;
  if (!out.empty()) out[0] = chunk.n_rows;
  return out;
}

uint64_t data_bytes(const Entry& entry, const Chunk& chunk) {
  return chunk.count * (manifest::info(entry.dtype).bits / 8);
}

torch_write::FileLayout archive_of(const Entry& entry, const Chunk& chunk) {
  torch_write::PickleWriter p;
  p.put(torch_write::PickledTensor::dense(entry.dtype, sizes_of(entry, chunk), 0));
  const uint64_t n_bytes = data_bytes(entry, chunk);
  return {std::move(p).finish(), std::span(&n_bytes, 1)};
}

}  // namespace crossdock::writer_dcp
