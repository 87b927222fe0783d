// SPDX-License-Identifier: Apache-2.0
#include "plugins/writer_safetensors/items.h"

#include <crossdock/bytes.hpp>

#include <algorithm>

namespace crossdock::writer_safetensors {

using common::Overflow;
using common::Unit;
using common::unit_of;

std::vector<Item> cut(const File& file, uint64_t max_bytes) {
  std::vector<Item> out;
  for (size_t i = 0; i < file.tensors.size(); ++i) {
    const Written& t = file.tensors[i];
    const Unit unit = unit_of(t.dtype);
    const uint64_t most = std::max<uint64_t>(max_bytes / unit.n_bytes, 1) * unit.n_elems;
    const bool fits =
        !out.empty() && t.n_bytes <= max_bytes - std::min(out.back().n_bytes, max_bytes);
    if (!fits) out.push_back({out.empty(), {}, t.offset, 0});
    for (uint64_t done = 0;;) {
      const uint64_t n = std::min(t.n_elems - done, most);
      out.back().parts.push_back({i, done, n});
      out.back().n_bytes += n / unit.n_elems * unit.n_bytes;
      done += n;
      if (done == t.n_elems) break;
      out.push_back({false, {}, out.back().begin + out.back().n_bytes, 0});
    }
  }
  return out;
}

common::ItemMemory memory_of(const File& file, const Item& item) {
  const auto any = [&](bool Written::*is) {
    return std::any_of(item.parts.begin(), item.parts.end(),
                       [&](const Part& part) { return file.tensors[part.tensor].*is; });
  };
  return common::item_memory(item.n_bytes, any(&Written::is_cast), any(&Written::may_overflow));
}

Result<void> plan_items(Plan& plan, uint32_t object, const File& file) {
  for (const Item& item : cut(file)) {
    std::vector<xd_range> needs;
    for (const Part& part : item.parts) {
      const Written& t = file.tensors[part.tensor];
      needs.push_back(common::range_of(t, part.begin, part.count));
      if (t.may_overflow) needs.push_back(dense_range(t.tensor, part.begin, part.count));
    }
    const uint64_t n_bytes = item.n_bytes + (item.is_first ? file.head_bytes : 0);
    XD_TRY(plan.item(object, needs, n_bytes, memory_of(file, item).sum()));
  }
  return {};
}

std::string encode(const Overflow& overflow) {
  std::string out;
  if (overflow.n_values == 0) return out;
  put_le(out, overflow.n_values);
  put_le(out, overflow.first);
  return out;
}

Result<Overflow> joined(std::span<const std::string_view> results) {
  Overflow out;
  for (const std::string_view bytes : results) {
    if (bytes.empty()) continue;
    Cursor in(as_bytes(bytes));
    const auto n_values = in.le<uint64_t>(), first = in.le<uint64_t>();
    if (in.failed() || !in.done())
      return Error{XD_INTERNAL,
                   cat("expected an item's result, found ", bytes.size(), " bytes that are none")};
    out.add({n_values, first});
  }
  return out;
}

}  // namespace crossdock::writer_safetensors
