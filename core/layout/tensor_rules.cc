#include "core/layout/tensor_rules.h"

#include "core/base/text.h"

#include <crossdock/bytes.hpp>

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

namespace crossdock::layout {

namespace pb = rules::v1;
using manifest::Manifest;
using manifest::Tensor;

namespace {

constexpr uint64_t kMaxLayers = 100'000;
constexpr uint64_t kMaxExperts = 1'024;
constexpr size_t kMaxMade = 2'000'000;  // tensors

// '##' first, so that what is left of '#' is the layer.
std::string with_numbers(std::string name, uint64_t layer, uint64_t expert) {
  for (size_t at; (at = name.find("##")) != std::string::npos;) name.replace(at, 2, std::to_string(expert));
  for (size_t at; (at = name.find('#')) != std::string::npos;) name.replace(at, 1, std::to_string(layer));
  return name;
}

bool has_layer(const std::string& name) { return with_numbers(name, 0, 0) != with_numbers(name, 1, 0); }

// One more than the greatest number that is a part of a name between dots.
uint64_t count_layers(const Manifest& m) {
  uint64_t out = 0;
  for (const Tensor& t : m.tensors) {
    for (size_t begin = 0; begin < t.name.size();) {
      const size_t end = std::min(t.name.find('.', begin), t.name.size());
      const std::string part = t.name.substr(begin, end - begin);
      if (!part.empty() && part.size() <= 6 &&
          std::all_of(part.begin(), part.end(), [](char c) { return c >= '0' && c <= '9'; }))
        out = std::max<uint64_t>(out, std::stoull(part) + 1);
      begin = end + 1;
    }
  }
  return std::min(out, kMaxLayers);
}

class Applier {
 public:
  Applier(const pb::Layout& layout, const Variables& variables, const Manifest& m)
      : layout_(layout), variables_(variables), m_(m), n_layers_(count_layers(m)), used_(m.tensors.size()) {
    for (uint64_t i = 0; i < m.tensors.size(); ++i) by_name_.emplace(m.tensors[i].name, i);
  }

  Result<std::vector<Program>> run(bool keep_unmatched, std::vector<Tensor>& tensors) {
    for (const pb::TensorRule& rule : layout_.tensor()) {
      if (auto ok = check(rule); !ok) return std::move(ok).error().in(rule.to());
    }
    for (const pb::TensorRule& rule : layout_.tensor()) {
      const uint64_t n = has_layer(rule.to()) ? n_layers_ : 1;
      for (uint64_t layer = 0; layer < n; ++layer) {
        if (auto done = apply(rule, layer); !done) return std::move(done).error().in(with_numbers(rule.to(), layer, 0));
      }
    }
    XD_TRY(drop());
    for (uint64_t i = 0; i < m_.tensors.size(); ++i) {
      if (used_[i]) continue;
      if (!keep_unmatched) {
        return unsupported(
            cat("expected a rule for every tensor, found none for \"", base::printable(m_.tensors[i].name),
                "\": add one with --rules, or keep such tensors under their own names with --keep-unmatched"));
      }
      keep(i, {});
    }
    // In the source's order, each where its first stored tensor is.
    std::stable_sort(made_.begin(), made_.end(), [](const Made& a, const Made& b) { return a.first < b.first; });
    std::vector<Program> programs;
    for (Made& made : made_) {
      tensors.push_back(std::move(made.tensor));
      programs.push_back(std::move(made.program));
    }
    return programs;
  }

 private:
  struct Made {
    uint64_t first;  // index of its first stored tensor
    Tensor tensor;
    Program program;
  };

  // Of every rule, so that one which this file has no tensor for is found out too.
  Result<void> check(const pb::TensorRule& rule) const {
    if (rule.to().empty() || rule.part().empty()) return invalid("expected a rule with `to` and a part");
    bool unstacks = false;
    for (const pb::Operation& op : rule.op()) unstacks = unstacks || op.unstack();
    if (unstacks != (rule.to().find("##") != std::string::npos))
      return invalid("expected '##' in the name of what unstack makes, and only there");
    const bool may_lack = !rule.if_has().empty() || !rule.if_lacks().empty();
    if (!may_lack) XD_TRY(check_bound(rule.op()));
    for (const pb::Part& part : rule.part()) {
      if (has_layer(part.from()) != has_layer(rule.to()))
        return invalid(cat("expected '#' for the layer in both names or in none, found ", part.from()));
      if (!may_lack) XD_TRY(check_bound(part.op()));
    }
    return {};
  }
  // That the metadata has what the operations name; their values may differ with the layer.
  Result<void> check_bound(const google::protobuf::RepeatedPtrField<pb::Operation>& ops) const {
    for (const pb::Operation& op : ops) {
      std::vector<std::string> texts(op.split().size().begin(), op.split().size().end());
      texts.insert(texts.end(), op.reshape().size().begin(), op.reshape().size().end());
      if (op.has_slice()) texts.insert(texts.end(), {op.slice().begin(), op.slice().size()});
      if (op.has_unpermute_rows()) texts.push_back(op.unpermute_rows());
      for (const std::string& text : texts) {
        auto n = text == "?" ? Result<uint64_t>(0) : variables_.number(text);
        if (!n && n.error().code == XD_NOT_FOUND) return std::move(n).error();
      }
    }
    return {};
  }

  void keep(uint64_t i, std::string left_out) {
    Made& made = made_.emplace_back(Made{i, m_.tensors[i], {}});
    made.tensor.left_out = std::move(left_out);
    made.program.pieces = {{i, View::of(made.tensor.shape)}};
    made.program.prepare();
    used_[i] = true;
  }

  Result<void> drop() {
    for (const pb::Dropped& rule : layout_.drop()) {
      for (uint64_t layer = 0; layer < (has_layer(rule.from()) ? n_layers_ : 1); ++layer) {
        const auto it = by_name_.find(with_numbers(rule.from(), layer, 0));
        if (it != by_name_.end() && !used_[it->second]) keep(it->second, rule.reason());
      }
    }
    return {};
  }

  Result<std::vector<uint64_t>> sizes(const google::protobuf::RepeatedPtrField<std::string>& texts, uint64_t whole,
                                      uint64_t layer) const {
    std::vector<uint64_t> out;
    std::optional<size_t> open;
    uint64_t product = 1;
    for (const std::string& text : texts) {
      if (text == "?" && open) return invalid("expected at most one size \"?\", found two");
      if (text == "?") open = out.size();
      out.push_back(1);
      if (text == "?") continue;
      XD_TRY_SET(out.back(), variables_.number(text, layer));
      if (__builtin_mul_overflow(product, out.back(), &product)) return invalid("expected sizes below 2^64");
    }
    if (open && (product == 0 || whole % product != 0))
      return invalid(cat("expected sizes that divide ", whole, ", found a product of ", product));
    if (open) out[*open] = whole / product;
    return out;
  }

  // llama.cpp's pairs of neighbours, [head][pair][2], to Hugging Face's [head][2][pair].
  Result<void> unpermute(View& view, const std::string& heads, uint64_t layer) const {
    XD_TRY_SET(const uint64_t n_heads, variables_.number(heads, layer));
    const uint64_t rows = view.rank() > 0 ? view.size(0) : 1;
    if (n_heads == 0 || rows % n_heads != 0 || rows / n_heads % 2 != 0)
      return invalid(cat("expected rows for ", n_heads, " heads of an even size, found ", rows));
    const uint64_t split[] = {n_heads, rows / n_heads / 2, 2};
    XD_TRY(view.split(0, split));
    std::vector<uint64_t> order(view.rank());
    for (uint64_t i = 0; i < order.size(); ++i) order[i] = i;
    std::swap(order[1], order[2]);
    XD_TRY(view.permute(order));
    return view.merge(0, 3);
  }

  Result<void> change(View& view, const pb::Operation& op, uint64_t layer) const {
    switch (op.kind_case()) {
      case pb::Operation::kSplit: {
        const uint64_t whole = op.split().dim() < view.rank() ? view.size(op.split().dim()) : 1;
        XD_TRY_SET(const auto parts, sizes(op.split().size(), whole, layer));
        return view.split(op.split().dim(), parts);
      }
      case pb::Operation::kMerge:
        return view.merge(op.merge().dim(), op.merge().count());
      case pb::Operation::kPermute: {
        const std::vector<uint64_t> order(op.permute().dim().begin(), op.permute().dim().end());
        return view.permute(order);
      }
      case pb::Operation::kSlice: {
        XD_TRY_SET(const uint64_t begin, variables_.number(op.slice().begin(), layer));
        XD_TRY_SET(const uint64_t size, variables_.number(op.slice().size(), layer));
        return view.slice(op.slice().dim(), begin, size);
      }
      case pb::Operation::kUnsqueeze:
        return view.unsqueeze(op.unsqueeze());
      case pb::Operation::kSqueeze:
        return view.squeeze(op.squeeze());
      case pb::Operation::kTranspose: {
        const uint64_t order[] = {1, 0};
        return view.permute(order);
      }
      case pb::Operation::kUnpermuteRows:
        return unpermute(view, op.unpermute_rows(), layer);
      case pb::Operation::kReshape: {
        if (view.rank() > 1) XD_TRY(view.merge(0, view.rank()));
        XD_TRY_SET(const auto parts, sizes(op.reshape().size(), view.rank() > 0 ? view.size(0) : 1, layer));
        return view.split(0, parts);
      }
      default:
        return invalid(
            "expected an operation on a shape: add, log_of_negated and unstack are the rule's own, not a part's");
    }
  }

  Result<View> view_of(uint64_t tensor, const pb::Part& part, uint64_t layer) const {
    const Tensor& t = m_.tensors[tensor];
    View view = View::of(t.shape);
    if (manifest::info(t.dtype).bits % 8 != 0 || *checked_product(t.shape) == 0)
      return unsupported(cat("expected elements of whole bytes to lay out, found ", base::printable(t.name), " of ",
                             manifest::name(t.dtype), " or without elements"));
    for (const pb::Operation& op : part.op()) {
      if (auto r = change(view, op, layer); !r)
        return std::move(r).error().in(cat("from ", base::printable(m_.tensors[tensor].name)));
    }
    return view;
  }

  // The stored tensors of one part: one, or with '##' as many as there are.
  std::vector<uint64_t> find(const pb::Part& part, uint64_t layer) const {
    const bool many = part.from().find("##") != std::string::npos;
    std::vector<uint64_t> out;
    for (uint64_t expert = 0; expert == 0 || many; ++expert) {
      const auto it = by_name_.find(with_numbers(part.from(), layer, expert));
      if (it == by_name_.end()) break;
      out.push_back(it->second);
    }
    return out;
  }

  bool has(const std::string& name, uint64_t layer) const { return by_name_.contains(with_numbers(name, layer, 0)); }

  Result<void> apply(const pb::TensorRule& rule, uint64_t layer) {
    if (!rule.if_has().empty() && !has(rule.if_has(), layer)) return {};
    if (!rule.if_lacks().empty() && has(rule.if_lacks(), layer)) return {};
    Program program;
    for (const pb::Part& part : rule.part()) {
      const auto tensors = find(part, layer);
      if (tensors.empty() && program.pieces.empty()) return {};  // the model has no such tensor
      if (tensors.empty())
        return invalid(
            cat("expected ", with_numbers(part.from(), layer, 0), " beside the rule's other tensors, found none"));
      for (const uint64_t i : tensors) {
        XD_TRY_SET(View view, view_of(i, part, layer));
        if (rule.join_case() == pb::TensorRule::kStack) XD_TRY(view.unsqueeze(0));
        program.pieces.push_back({i, std::move(view)});
      }
    }
    for (const Piece& piece : program.pieces) used_[piece.tensor] = true;
    return finish(rule, layer, std::move(program));
  }

  // The shape of the joined pieces.
  Result<std::vector<uint64_t>> join(const pb::TensorRule& rule, Program& program) const {
    std::vector<uint64_t> shape = program.pieces[0].view.shape();
    if (rule.join_case() == pb::TensorRule::JOIN_NOT_SET && program.pieces.size() > 1)
      return invalid(cat("expected concat or stack for ", program.pieces.size(), " tensors, found neither"));
    program.join_dim = rule.concat();
    if (program.join_dim >= shape.size() && program.pieces.size() > 1)
      return invalid(cat("expected a dimension below ", shape.size(), " to join, found ", program.join_dim));
    for (size_t i = 1; i < program.pieces.size(); ++i) {
      const auto other = program.pieces[i].view.shape();
      for (size_t dim = 0; dim < shape.size(); ++dim) {
        if (other.size() == shape.size() && (dim == program.join_dim || other[dim] == shape[dim])) continue;
        return invalid("expected tensors whose shapes differ along the joined dimension alone, found others");
      }
      if (m_.tensors[program.pieces[i].tensor].dtype != m_.tensors[program.pieces[0].tensor].dtype)
        return invalid("expected tensors of one type to join, found two");
      shape[program.join_dim] += other[program.join_dim];
    }
    return shape;
  }

  Result<void> finish(const pb::TensorRule& rule, uint64_t layer, Program program) {
    XD_TRY_SET(const auto joined, join(rule, program));
    Tensor t = m_.tensors[program.pieces[0].tensor];
    for (size_t i = 1; i < program.pieces.size(); ++i) {
      const Tensor& other = m_.tensors[program.pieces[i].tensor];
      if (program.pieces[i].tensor == program.pieces[i - 1].tensor) continue;
      t.name += "+" + other.name;
      t.extents.insert(t.extents.end(), other.extents.begin(), other.extents.end());
      if (other.encoding != t.encoding) t.encoding += "+" + other.encoding;
    }
    // Operations on the whole only count elements, so a view of a dense tensor of its shape stands for it. Of one piece
    // it is the piece's own view.
    const bool alone = program.pieces.size() == 1;
    View view = alone ? program.pieces[0].view : View::of(joined);
    bool unstack = false;
    for (const pb::Operation& op : rule.op()) {
      const bool is_of_values = op.has_add() || op.has_log_of_negated();
      if (unstack && !is_of_values) return invalid("expected unstack as the last operation on the shape");
      switch (op.kind_case()) {
        case pb::Operation::kAdd:
          program.add += op.add();
          break;
        case pb::Operation::kLogOfNegated:
          if (program.add != 0) return invalid("expected log_of_negated before add, found it after");
          program.log_of_negated = op.log_of_negated();
          break;
        case pb::Operation::kUnstack:
          unstack = op.unstack();
          break;
        case pb::Operation::kSplit:
        case pb::Operation::kMerge:
        case pb::Operation::kReshape:
          XD_TRY(change(view, op, layer));
          break;
        default:
          if (!alone) return invalid("expected only split, merge, reshape, add or log_of_negated after a join");
          XD_TRY(change(view, op, layer));
      }
    }
    if ((program.add != 0 || program.log_of_negated) && t.dtype != manifest::DType::F32)
      return unsupported(
          cat("expected F32 values to compute on, found ", manifest::name(t.dtype), " in ", base::printable(t.name)));
    t.shape = view.shape();
    if (alone) program.pieces[0].view = view;
    if (!unstack) return add(rule, layer, 0, std::move(t), std::move(program));
    if (!alone || t.shape.empty()) return invalid("expected one tensor with a first dimension to unstack");
    if (t.shape[0] > kMaxExperts)
      return unsupported(cat("expected at most ", kMaxExperts, " experts, found ", t.shape[0]));
    const std::string stacked = t.name;
    for (uint64_t expert = 0, n = t.shape[0]; expert < n; ++expert) {
      Program one = program;
      Tensor part = t;
      part.name = cat(stacked, "[", expert, "]");
      XD_TRY(one.pieces[0].view.slice(0, expert, 1));
      XD_TRY(one.pieces[0].view.squeeze(0));
      part.shape = one.pieces[0].view.shape();
      XD_TRY(add(rule, layer, expert, std::move(part), std::move(one)));
    }
    return {};
  }

  Result<void> add(const pb::TensorRule& rule, uint64_t layer, uint64_t expert, Tensor t, Program program) {
    if (made_.size() >= kMaxMade) return unsupported(cat("expected at most ", kMaxMade, " tensors, found more"));
    const std::string name = with_numbers(rule.to(), layer, expert);
    if (const auto [it, fresh] = targets_.emplace(name, t.name); !fresh)
      return invalid(cat("expected one rule for ", name, ", found it made of both ", base::printable(it->second),
                         " and ", base::printable(t.name)));
    // A stored tensor may be a part of several: names stay different.
    if (!names_.insert(t.name).second) t.name += " as " + name;
    t.target_name = name == t.name ? "" : name;
    program.prepare();
    if (!program.is_plain()) t.layout = rule.ShortDebugString();
    made_.push_back({program.pieces[0].tensor, std::move(t), std::move(program)});
    return {};
  }

  const pb::Layout& layout_;
  const Variables& variables_;
  const Manifest& m_;
  const uint64_t n_layers_;
  std::unordered_map<std::string, uint64_t> by_name_;
  std::unordered_map<std::string, std::string> targets_;
  std::unordered_set<std::string> names_;
  std::vector<bool> used_;
  std::vector<Made> made_;
};

}  // namespace

Result<std::vector<Program>> apply_tensor_rules(const pb::Layout& layout, const Variables& variables,
                                                bool keep_unmatched, Manifest& m) {
  std::vector<Tensor> tensors;
  XD_TRY_SET(auto programs, Applier(layout, variables, m).run(keep_unmatched, tensors));
  m.tensors = std::move(tensors);
  return programs;
}

}  // namespace crossdock::layout
