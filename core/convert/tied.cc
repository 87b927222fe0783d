// SPDX-License-Identifier: Apache-2.0
#include "core/convert/tied.h"

#include "core/base/text.h"
#include "core/model/check.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <iterator>
#include <unordered_map>

namespace crossdock::convert {

using manifest::Manifest;
using manifest::Tensor;

namespace {

using AreEqual = std::function<Result<bool>(uint64_t, uint64_t)>;

// Two tensors of one type and shape.
Result<bool> equal_values(TensorSource& model, uint64_t a, uint64_t b, uint64_t piece_bytes,
                          const std::atomic<bool>& cancelled) {
  base::Memory& memory = model.host().memory();
  const base::Block first(memory, piece_bytes), second(memory, piece_bytes);
  if (!first.data || !second.data)
    return Error{XD_NO_MEMORY, "expected room to compare two tensors: raise --memory"};
  const Tensor& t = model.manifest().tensors[a];
  const uint64_t elem_bytes = manifest::info(t.dtype).bits / 8;
  const uint64_t count = model::element_count(t), step = piece_bytes / elem_bytes;
  for (uint64_t i = 0; i < count; i += step) {
    const uint64_t n = std::min(step, count - i);
    XD_TRY(model.read(a, i, n, {first.data, n * elem_bytes}));
    XD_TRY(model.read(b, i, n, {second.data, n * elem_bytes}));
    if (std::memcmp(first.data, second.data, n * elem_bytes) != 0) return false;
    if (cancelled) return Error{XD_CANCELLED, "cancelled"};
  }
  return true;
}

// Names that share one storage in the source are one parameter, unless the class is known and does
// not tie them. The class's own name is kept rather than one that it ties to another, and both
// rather than one that it has not; of equals the first.
void exclude_aliases(const OneParameter& known, Manifest& target) {
  std::unordered_map<uint64_t, int> rank;      // 0 for all others
  std::unordered_map<uint64_t, uint64_t> own;  // of tied names the parameter's own
  for (const manifest::AliasGroup& group : known.tied) {
    for (const uint64_t i : group.tensors) own[i] = group.tensors[0];
    for (size_t i = 1; i < group.tensors.size(); ++i) rank[group.tensors[i]] = 1;
  }
  for (const uint64_t i : known.unknown) rank[i] = 2;
  const auto rank_of = [&](uint64_t i) { return rank.contains(i) ? rank.at(i) : 0; };
  const auto own_of = [&](uint64_t i) { return own.contains(i) ? own.at(i) : i; };
  for (manifest::AliasGroup& group : target.alias_groups) {
    std::vector<uint64_t> there;
    std::copy_if(group.tensors.begin(), group.tensors.end(), std::back_inserter(there),
                 [&](uint64_t i) { return target.tensors[i].excluded.empty(); });
    if (there.empty()) continue;
    const uint64_t kept =
        *std::min_element(there.begin(), there.end(),
                          [&](uint64_t a, uint64_t b) { return rank_of(a) < rank_of(b); });
    for (const uint64_t i : there) {
      if (i == kept) continue;
      const bool is_another = known.is_class_known && rank_of(i) != 2 && own_of(i) != own_of(kept);
      if (is_another) {
        std::erase(group.tensors, i);
      } else {
        target.tensors[i].excluded =
            cat("shares its storage in the source with ", target.tensors[kept].name);
      }
    }
  }
  std::erase_if(target.alias_groups, [](const auto& group) { return group.tensors.size() < 2; });
}

// Of names that are one parameter, equal copies in the file are left out.
Result<void> exclude_copies(const std::vector<manifest::AliasGroup>& tied, Manifest& target,
                            const AreEqual& are_equal, std::vector<std::string>& notes) {
  for (const manifest::AliasGroup& group : tied) {
    const Tensor& kept = target.tensors[group.tensors[0]];
    manifest::AliasGroup same{{group.tensors[0]}};
    for (size_t i = 1; i < group.tensors.size(); ++i) {
      Tensor& other = target.tensors[group.tensors[i]];
      if (!kept.excluded.empty() || !other.excluded.empty()) continue;
      bool equal = kept.dtype == other.dtype && kept.shape == other.shape;
      if (equal) {
        XD_TRY_SET(equal, are_equal(group.tensors[0], group.tensors[i]));
      }
      if (equal) {
        other.excluded =
            cat("tied to ", kept.target(), " by its class and config.json, with equal values");
        same.tensors.push_back(group.tensors[i]);
      } else {
        notes.push_back(cat("The class and config.json tie ", other.target(), " to ", kept.target(),
                            ", but they differ: both are written; a job that ties them uses ",
                            kept.target(), " alone."));
      }
    }
    if (same.tensors.size() > 1) target.alias_groups.push_back(std::move(same));
  }
  return {};
}

AreEqual comparison(TensorSource& model, uint64_t piece_bytes, const std::atomic<bool>& cancelled) {
  return [&model, piece_bytes, &cancelled](uint64_t a, uint64_t b) {
    return equal_values(model, a, b, piece_bytes, cancelled);
  };
}

}  // namespace

Result<void> exclude_tied(TensorSource& model, const OneParameter& known, Manifest& target,
                          uint64_t piece_bytes, const std::atomic<bool>& cancelled,
                          std::vector<std::string>& notes) {
  exclude_aliases(known, target);
  return exclude_copies(known.tied, target, comparison(model, piece_bytes, cancelled), notes);
}

Result<void> check_tied(TensorSource& model, const Manifest& target, uint64_t piece_bytes,
                        const std::atomic<bool>& cancelled) {
  const AreEqual are_equal = comparison(model, piece_bytes, cancelled);
  std::unordered_map<std::string_view, uint64_t> excluded;
  for (uint64_t i = 0; i < target.tensors.size(); ++i) {
    if (!target.tensors[i].excluded.empty()) excluded.emplace(target.tensors[i].target(), i);
  }
  for (const manifest::ModuleName& entry : target.module) {
    const auto other = excluded.find(entry.name);
    if (other == excluded.end() || other->second == entry.tensor) continue;
    const Tensor &kept = target.tensors[entry.tensor], &copy = target.tensors[other->second];
    bool same = kept.dtype == copy.dtype && kept.shape == copy.shape;
    if (same) {
      XD_TRY_SET(same, are_equal(entry.tensor, other->second));
    }
    if (!same) {
      return invalid(
          cat("expected ", base::printable(entry.name), " and ", base::printable(kept.target()),
              ", which the job's module ties, to hold the same values in the source, found others: "
              "describe a "
              "module that does not tie them with --target, or leave one out of the source"));
    }
  }
  return {};
}

}  // namespace crossdock::convert
