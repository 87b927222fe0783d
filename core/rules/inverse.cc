// SPDX-License-Identifier: Apache-2.0
#include "core/rules/inverse.h"

#include "core/base/text.h"

#include <algorithm>

namespace crossdock::rules {

namespace {

using Ops = std::vector<pb::Operation>;

Error no_inverse(const std::string& what) {
  return unsupported(cat("expected operations that can be read backwards, found ", what));
}

// The sizes of dimensions as texts, "?" where they are not known: enough to undo a merge of
// dimensions that were split before.
using Sizes = std::vector<std::string>;

constexpr uint32_t kMaxRank = 64;  // more than any tensor has

const std::string& at(Sizes& sizes, size_t dim) {
  if (sizes.size() <= dim) sizes.resize(dim + 1, "?");
  return sizes[dim];
}

Result<pb::Operation> undo_split(const pb::Split& split, Sizes& sizes) {
  if (split.dim() >= kMaxRank || split.size().empty()) return no_inverse("a split of no dimension");
  at(sizes, split.dim());
  const auto place = sizes.begin() + split.dim();
  sizes.insert(sizes.erase(place), split.size().begin(), split.size().end());
  pb::Operation out;
  out.mutable_merge()->set_dim(split.dim());
  out.mutable_merge()->set_count(static_cast<uint32_t>(split.size().size()));
  return out;
}

Result<pb::Operation> undo_merge(const pb::Merge& merge, Sizes& sizes) {
  const uint32_t dim = merge.dim(), count = merge.count();
  if (dim >= kMaxRank || count == 0 || count > kMaxRank)
    return no_inverse("a merge of no dimensions");
  at(sizes, dim + count - 1);
  pb::Operation out;
  out.mutable_split()->set_dim(dim);
  for (uint32_t i = 0; i < count; ++i) out.mutable_split()->add_size(sizes[dim + i]);
  const auto first = sizes.begin() + dim;
  first->assign(1, '?');
  sizes.erase(first + 1, first + count);
  return out;
}

Result<pb::Operation> undo_permute(const pb::Permute& permute, Sizes& sizes) {
  const auto& order = permute.dim();
  std::vector<uint32_t> back(static_cast<size_t>(order.size()), kMaxRank);
  Sizes permuted;
  for (int i = 0; i < order.size(); ++i) {
    if (order[i] >= back.size() || back[order[i]] != kMaxRank)
      return no_inverse("a permutation that is none");
    back[order[i]] = static_cast<uint32_t>(i);
    permuted.push_back(at(sizes, order[i]));
  }
  sizes = std::move(permuted);
  pb::Operation out;
  for (const uint32_t dim : back) out.mutable_permute()->add_dim(dim);
  return out;
}

Result<pb::Operation> undo(const pb::Operation& op, Sizes& sizes) {
  pb::Operation out;
  switch (op.kind_case()) {
    case pb::Operation::kSplit:
      return undo_split(op.split(), sizes);
    case pb::Operation::kMerge:
      return undo_merge(op.merge(), sizes);
    case pb::Operation::kPermute:
      return undo_permute(op.permute(), sizes);
    case pb::Operation::kTranspose:
      at(sizes, 1);
      std::swap(sizes[0], sizes[1]);
      return op;
    case pb::Operation::kUnsqueeze:
      out.set_squeeze(op.unsqueeze());
      if (sizes.size() > op.unsqueeze()) sizes.insert(sizes.begin() + op.unsqueeze(), "1");
      return out;
    case pb::Operation::kSqueeze:
      out.set_unsqueeze(op.squeeze());
      if (sizes.size() > op.squeeze()) sizes.erase(sizes.begin() + op.squeeze());
      return out;
    case pb::Operation::kUnpermuteRows:
      out.set_permute_rows(op.unpermute_rows());
      return out;
    case pb::Operation::kPermuteRows:
      out.set_unpermute_rows(op.permute_rows());
      return out;
    default: {
      const auto* field = op.GetDescriptor()->FindFieldByNumber(op.kind_case());
      return no_inverse(field ? field->name() : "none");
    }
  }
}

class Inversion {
 public:
  Inversion(const Operations& operations, const Variables& variables)
      : operations_(operations), variables_(variables) {}

  Result<void> run(const pb::Part& part, Operand whole, const Numbers& numbers) {
    FilePiece piece;
    Ops undone;
    Sizes sizes;
    for (const pb::Operation& op : part.op()) {
      // A piece is joined with the others before what was done to the whole is undone.
      if (op.has_chunk() && undone.empty() && part.part().empty() && piece.chunk.of() == 0) {
        piece.chunk = op.chunk();
        if (piece.chunk.of() == 0) return no_inverse("a chunk of none");
        continue;
      }
      XD_TRY_SET(undone.emplace_back(), undo(op, sizes));
    }
    const uint64_t layer = numbers.empty() ? kNoLayer : numbers[0];
    std::reverse(undone.begin(), undone.end());
    for (const pb::Operation& op : undone) XD_TRY(operations_.apply(whole, op, layer));
    if (!part.part().empty()) return split(part, std::move(whole), numbers);
    piece.name = with_numbers(part.from(), numbers);
    piece.operand = std::move(whole);
    pieces.push_back(std::move(piece));
    return {};
  }

  std::vector<FilePiece> pieces;

 private:
  Result<void> split(const pb::Part& part, Operand whole, const Numbers& numbers) {
    if (!part.stack()) return split_concat(part, whole, numbers);
    const bool runs = part.part().size() == 1 && has_free_number(part.part(0), numbers.size());
    const uint64_t n = whole.view.rank() > 0 ? whole.view.size(0) : 0;
    if (!runs && n != static_cast<uint64_t>(part.part().size()))
      return invalid(cat("expected ", part.part().size(), " to split, found ", n));
    if (n > kMaxExperts)
      return unsupported(cat("expected at most ", kMaxExperts, " experts, found ", n));
    for (uint64_t i = 0; i < n; ++i) {
      Operand one = whole;
      XD_TRY(one.view.slice(0, i, 1));
      XD_TRY(one.view.squeeze(0));
      one.steps.push_back({"select", cat("0, ", i)});
      Numbers its = numbers;
      if (runs) its.push_back(i);
      XD_TRY(run(part.part(runs ? 0 : static_cast<int>(i)), std::move(one), its));
    }
    return {};
  }

  // Parts of equal size, or of those that the rule tells.
  Result<void> split_concat(const pb::Part& part, const Operand& whole, const Numbers& numbers) {
    const uint64_t dim = part.concat();
    const auto count = static_cast<uint64_t>(part.part().size());
    const uint64_t all = dim < whole.view.rank() ? whole.view.size(dim) : 0;
    uint64_t begin = 0;
    for (const pb::Part& child : part.part()) {
      uint64_t size = all / count;
      if (!child.size().empty()) {
        XD_TRY_SET(size, variables_.number(child.size(), numbers.empty() ? kNoLayer : numbers[0]));
      }
      Operand one = whole;
      XD_TRY(one.view.slice(dim, begin, size));
      one.steps.push_back({"slice", cat(dim, ", ", begin, ", ", size)});
      begin += size;
      XD_TRY(run(child, std::move(one), numbers));
    }
    if (begin == all) return {};
    return invalid(cat("expected dimension ", dim, " in ", count, " parts, found ", all));
  }

  const Operations& operations_;
  const Variables& variables_;
};

}  // namespace

Result<std::vector<FilePiece>> invert(const pb::Part& from, Operand whole, const Numbers& numbers,
                                      const Operations& operations, const Variables& variables) {
  Inversion inversion(operations, variables);
  XD_TRY(inversion.run(from, std::move(whole), numbers));
  return std::move(inversion.pieces);
}

Result<std::vector<FilePieces::FileTensor>> FilePieces::join() && {
  std::vector<FileTensor> out;
  for (auto& [name, pieces] : pieces_) {
    FileTensor& tensor = out.emplace_back();
    tensor.name = name;
    for (const Piece& piece : pieces) tensor.of.push_back(piece.of);
    XD_TRY_SET(tensor.expression, join(name, pieces));
  }
  return out;
}

Result<transform::Expression> FilePieces::join(const std::string& name,
                                               std::vector<Piece>& pieces) {
  const pb::Chunk chunk = pieces[0].piece.chunk;
  for (const Piece& piece : pieces) {
    const pb::Chunk& other = piece.piece.chunk;
    if (other.of() != chunk.of() || other.dim() != chunk.dim() ||
        (chunk.of() == 0 && pieces.size() > 1))
      return unsupported(cat("expected parameters that are parts of ", base::printable(name),
                             " in one way, found several"));
  }
  if (chunk.of() == 0) return std::move(pieces[0].piece.operand).finish();
  std::sort(pieces.begin(), pieces.end(), [](const Piece& a, const Piece& b) {
    return a.piece.chunk.index() < b.piece.chunk.index();
  });
  std::vector<transform::Expression> joined;
  for (Piece& piece : pieces) {
    if (piece.piece.chunk.index() != joined.size()) break;
    XD_TRY_SET(auto one, std::move(piece.piece.operand).finish());
    joined.push_back(std::move(one));
  }
  if (joined.size() == chunk.of())
    return transform::Expression::concat(std::move(joined), chunk.dim());
  return corrupt(cat("expected all ", chunk.of(), " parts of ", base::printable(name), ", found ",
                     joined.size(), ": the model is incomplete"));
}

}  // namespace crossdock::rules
