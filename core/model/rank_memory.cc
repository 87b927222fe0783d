// SPDX-License-Identifier: Apache-2.0
#include "core/model/rank_memory.h"

#include "core/model/check.h"

#include <set>
#include <string_view>

namespace crossdock::model {

namespace {

using manifest::Manifest;
using manifest::Tensor;

const manifest::Value* metadata_of(const Manifest& m, std::string_view key) {
  for (const manifest::KeyValue& entry : m.source.metadata) {
    if (entry.key == key) return &entry.value;
  }
  return nullptr;
}

uint64_t natural(const Manifest& m, std::string_view key) {
  const manifest::Value* value = metadata_of(m, key);
  if (!value) return 0;
  if (const auto* number = value->get<uint64_t>()) return *number;
  const auto* number = value->get<int64_t>();
  return number && *number > 0 ? static_cast<uint64_t>(*number) : 0;
}

// Bytes of an element of the job's own weights; 0: as the checkpoint has them.
uint64_t bytes_of_job(const Manifest& m) {
  const manifest::Value* value = metadata_of(m, "dtype");
  const auto* text = value ? value->get<std::string>() : nullptr;
  if (!text) return 0;
  return *text == "fp32" ? 4 : 2;
}

uint64_t share(uint64_t bytes, uint64_t n_ranks) { return bytes / n_ranks + (bytes % n_ranks > 0); }

}  // namespace

std::optional<RankMemory> rank_memory(const Manifest& m) {
  RankMemory out;
  out.n_ranks = natural(m, "dp_world_size");
  out.zero_stage = natural(m, "zero_stage");
  const bool is_fsdp = m.source.format == "dcp";
  if (out.n_ranks == 0 || (out.zero_stage == 0 && !is_fsdp)) return std::nullopt;
  const uint64_t n_slices = std::max<uint64_t>(natural(m, "mp_world_size"), 1);
  const uint64_t elem_bytes = bytes_of_job(m);
  const std::set<uint64_t> other = other_names(m);
  uint64_t trained = 0;  // elements
  for (uint64_t i = 0; i < m.tensors.size(); ++i) {
    const Tensor& t = m.tensors[i];
    if (other.contains(i)) continue;
    if (t.role == manifest::Role::kOptimizerState) {
      out.optimizer += value_bytes(t);
    } else if (t.role != manifest::Role::kBuffer) {
      const uint64_t bytes = elem_bytes ? element_count(t) * elem_bytes : value_bytes(t);
      out.weights += bytes;
      if (t.train == manifest::Training::kFrozen) continue;
      trained += element_count(t);
      out.gradients += bytes;
    }
  }
  if (!is_fsdp) out.optimizer += trained * 4;  // the fp32 weights; FSDP's own are of that type
  const auto ranks_from = [&](uint64_t stage) {
    return is_fsdp || out.zero_stage >= stage ? out.n_ranks : 1;
  };
  out.weights = share(out.weights, n_slices * ranks_from(3));
  out.gradients = share(out.gradients, n_slices * ranks_from(2));
  out.optimizer = share(out.optimizer, n_slices * out.n_ranks);
  return out;
}

}  // namespace crossdock::model
