// SPDX-License-Identifier: Apache-2.0
#include "core/rules/parts.h"

#include "core/base/text.h"

#include <crossdock/bytes.hpp>

#include <algorithm>
#include <set>

namespace crossdock::rules {

using manifest::Tensor;
using transform::Expression;

Result<void> for_each_leaf(const google::protobuf::RepeatedPtrField<pb::Part>& parts,
                           const std::function<Result<void>(const pb::Part&)>& visit) {
  for (const pb::Part& part : parts)
    XD_TRY(part.part().empty() ? visit(part) : for_each_leaf(part.part(), visit));
  return {};
}

std::vector<std::string> names_of(const pb::Part& part) {
  if (part.part().empty()) return {part.from()};
  std::vector<std::string> out;
  for (const pb::Part& child : part.part()) {
    for (std::string& name : names_of(child)) out.push_back(std::move(name));
  }
  return out;
}

const std::string& first_name(const pb::Part& part) {
  return part.part().empty() ? part.from() : first_name(part.part(0));
}

bool has_free_number(const pb::Part& part, size_t depth) {
  if (part.part().empty()) return has_number(part.from(), depth);
  return !part.stack() &&
         std::any_of(part.part().begin(), part.part().end(),
                     [depth](const pb::Part& child) { return has_free_number(child, depth); });
}

// What a joined tensor is called in the source: "a+b", or of many the first and the last.
Tensor joined_source(const manifest::Manifest& m, const std::vector<uint64_t>& stored) {
  constexpr size_t kMax = 4;
  Tensor t = m.tensors[stored[0]];
  std::set<std::string> encodings{t.encoding};
  for (size_t i = 1; i < stored.size(); ++i) {
    const Tensor& other = m.tensors[stored[i]];
    if (stored.size() <= kMax || i + 1 == stored.size())
      t.name += (stored.size() <= kMax ? "+" : "+...+") + other.name;
    t.extents.insert(t.extents.end(), other.extents.begin(), other.extents.end());
    if (encodings.insert(other.encoding).second) t.encoding += "+" + other.encoding;
  }
  return t;
}

Result<uint64_t> Parts::count(const Running& running, const std::string& name, Place place) const {
  if (running.count.empty()) {
    place.numbers.resize(running.depth + 1);
    uint64_t& n = place.numbers[running.depth] = 1;
    while (n < kMaxExperts && find_(with_numbers(name, place.numbers))) ++n;
    return n;
  }
  XD_TRY_SET(const uint64_t n, variables_.number(running.count, place.layer()));
  if (n > 0 && n <= kMaxExperts) return n;
  return unsupported(cat("expected ", running.count, " to be 1 to ", kMaxExperts, ", found ", n));
}

// A tensor of the file with the part's operations done. One that is not there is no error yet: an
// optional rule may go without it, so it is only counted.
Result<std::optional<Operand>> Parts::leaf(const pb::Part& part, const Place& place,
                                           Joined& found) const {
  const std::string name = with_numbers(part.from(), place.numbers);
  const auto index = find_(name);
  if (!index) {
    if (found.n_missing++ == 0) found.missing = name;
    return std::optional<Operand>();
  }
  found.stored.push_back(*index);
  const Tensor& t = m_.tensors[*index];
  if (manifest::info(t.dtype).bits % 8 != 0 || *checked_product(t.shape) == 0)
    return unsupported(cat("expected elements of whole bytes to lay out, found ",
                           base::printable(t.name), " of ", manifest::name(t.dtype),
                           " or without elements"));
  XD_TRY_SET(Operand operand, make_(*index));
  for (const pb::Operation& op : part.op()) {
    if (auto r = operations_.apply(operand, op, place.layer()); !r)
      return std::move(r).error().in(cat("from ", base::printable(t.name)));
  }
  return std::optional(std::move(operand));
}

Result<std::optional<Operand>> Parts::make(const pb::Part& part, const Running& running,
                                           const Place& place, Joined& found) const {
  if (part.part().empty()) return leaf(part, place, found);
  XD_TRY_SET(auto operand, join_parts(part, running, place, found));
  if (!operand) return operand;
  for (const pb::Operation& op : part.op()) XD_TRY(operations_.apply(*operand, op, place.layer()));
  return operand;
}

namespace {

// Whether two shapes are the same but for dimension `dim`.
bool fit(std::vector<uint64_t> a, std::vector<uint64_t> b, uint64_t dim) {
  if (a.size() != b.size() || dim >= a.size()) return false;
  a[dim] = b[dim];
  return a == b;
}

}  // namespace

template <class Whole>
Result<std::optional<Operand>> Parts::join_parts(const Whole& whole, const Running& running,
                                                 const Place& place, Joined& found) const {
  std::vector<Operand> operands;
  std::vector<size_t> firsts;  // of the stored tensors of each
  for (const pb::Part& part : whole.part()) {
    uint64_t n = 1;
    const bool runs = whole.stack() && has_free_number(part, running.depth);
    if (runs) {
      XD_TRY_SET(n, count(running, first_name(part), place));
    }
    Place at = place;
    if (runs) at.numbers.resize(running.depth + 1);
    for (uint64_t i = 0; i < n; ++i) {
      if (runs) at.numbers[running.depth] = i;
      firsts.push_back(found.stored.size());
      XD_TRY_SET(auto operand, make(part, running, at, found));
      // A stack is a concat of tensors that have one more dimension.
      if (operand && whole.stack()) {
        pb::Operation new_dimension;
        new_dimension.set_unsqueeze(0);
        XD_TRY(operations_.apply(*operand, new_dimension, place.layer()));
      }
      if (operand) operands.push_back(*std::move(operand));
    }
  }
  if (found.n_missing > 0) return std::optional<Operand>();
  if (operands.size() == 1) return std::optional(std::move(operands[0]));
  if (!whole.has_concat() && !whole.stack())
    return invalid(
        cat("expected concat or stack for ", operands.size(), " tensors, found neither"));
  for (size_t i = 1; i < operands.size(); ++i) {
    if (fit(operands[0].view.shape(), operands[i].view.shape(), whole.concat())) continue;
    const Tensor &first = m_.tensors[found.stored[firsts[0]]],
                 &other = m_.tensors[found.stored[firsts[i]]];
    return corrupt(cat("expected parts that differ in the joined dimension alone, found ",
                       base::printable(other.name), " of ", base::list_text(other.shape),
                       " beside ", base::printable(first.name), " of ",
                       base::list_text(first.shape)));
  }
  std::vector<Expression> joined;
  for (Operand& operand : operands) {
    XD_TRY_SET(Expression one, std::move(operand).finish());
    joined.push_back(std::move(one));
  }
  XD_TRY_SET(Expression all, Expression::concat(std::move(joined), whole.concat()));
  return std::optional(Operand::of(std::move(all)));
}

Result<Joined> Parts::join(const pb::TensorRule& rule, const Running& running,
                           const Place& place) const {
  Joined found;
  XD_TRY_SET(found.operand, join_parts(rule, running, place, found));
  return found;
}

Result<Joined> Parts::join(const pb::Part& part, const Running& running, const Place& place) const {
  Joined found;
  XD_TRY_SET(found.operand, make(part, running, place, found));
  return found;
}

}  // namespace crossdock::rules
