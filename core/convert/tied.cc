#include "core/convert/tied.h"

#include "core/base/text.h"
#include "core/model/check.h"
#include "core/model/target.h"

#include <algorithm>
#include <cstring>
#include <functional>
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

// Names that share one storage in the source are one parameter.
void drop_aliases(Manifest& target) {
  for (const manifest::AliasGroup& group : target.alias_groups) {
    const Tensor* kept = nullptr;  // the first
    for (const uint64_t i : group.tensors) {
      Tensor& t = target.tensors[i];
      if (!t.left_out.empty()) continue;
      if (kept) t.left_out = cat("shares its storage in the source with ", kept->name);
      if (!kept) kept = &t;
    }
  }
}

// A model whose config ties its embeddings has one parameter for both; a second, equal copy in the
// file is left out.
Result<void> drop_tied(Manifest& target, const AreEqual& are_equal,
                       std::vector<std::string>& notes) {
  if (!model::ties_embeddings(target)) return {};
  const model::Tied tied = model::tied_embeddings(target);
  if (!tied.out || !target.tensors[*tied.out].left_out.empty()) return {};
  Tensor& head = target.tensors[*tied.out];
  if (!tied.in) {
    notes.push_back(cat("config.json ties the embeddings, but the source has ", head.name,
                        " and no input embeddings of its shape: a job that ties them looks for the "
                        "input's name; rename it, "
                        "as with --rename '^lm_head=model.embed_tokens'."));
    return {};
  }
  const std::string& in_name = target.tensors[*tied.in].name;
  XD_TRY_SET(const bool same, are_equal(*tied.in, *tied.out));
  if (!same) {
    notes.push_back(cat("config.json ties the embeddings, but ", head.name, " and ", in_name,
                        " differ: both are written; a job that ties them uses ", in_name,
                        " alone."));
    return {};
  }
  head.left_out =
      cat("tied to ", in_name, " by tie_word_embeddings of config.json, with equal values");
  target.alias_groups.push_back({{*tied.in, *tied.out}});
  return {};
}

// Names that the job's module ties, where the source has values for each: one is left out, so it
// must hold the same.
Result<void> check_tied(const Manifest& target, const AreEqual& are_equal) {
  std::unordered_map<std::string_view, uint64_t> left_out;
  for (uint64_t i = 0; i < target.tensors.size(); ++i) {
    if (!target.tensors[i].left_out.empty()) left_out.emplace(target.tensors[i].target(), i);
  }
  for (const manifest::ModuleName& entry : target.module) {
    const auto other = left_out.find(entry.name);
    if (other == left_out.end() || other->second == entry.tensor) continue;
    const Tensor &kept = target.tensors[entry.tensor], &dropped = target.tensors[other->second];
    bool same = kept.dtype == dropped.dtype && kept.shape == dropped.shape;
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

}  // namespace

Result<void> leave_out_tied(TensorSource& model, Manifest& target, uint64_t piece_bytes,
                            const std::atomic<bool>& cancelled, std::vector<std::string>& notes) {
  const AreEqual are_equal = [&](uint64_t a, uint64_t b) {
    return equal_values(model, a, b, piece_bytes, cancelled);
  };
  if (!target.module.empty())
    return check_tied(target, are_equal);  // the job's module says which names are one
  drop_aliases(target);
  return drop_tied(target, are_equal, notes);
}

}  // namespace crossdock::convert
