// SPDX-License-Identifier: Apache-2.0
#include "plugins/torch/read/builder.h"

#include "plugins/common/quote.h"
#include "plugins/torch/read/globals.h"

#include <algorithm>
#include <limits>

namespace crossdock::torch_read {

using common::in_quotes;
using manifest::DType;

namespace {

constexpr uint64_t kMaxInt = std::numeric_limits<int64_t>::max();

Result<uint64_t> natural(const Value& v, std::string_view what) {
  const bool is_number = v.kind == Kind::kInt && v.data <= kMaxInt;
  if (!is_number)
    return corrupt(cat(
        "expected ", what, " of 0 or more, found ",
        v.kind == Kind::kInt ? cat(static_cast<int64_t>(v.data)) : std::string(name_of(v.kind))));
  return v.data;
}

}  // namespace

Error too_many(std::string_view what, size_t limit) {
  return unsupported(cat("expected at most ", limit, ' ', what, ", found more"));
}

Result<void> Builder::count_values(size_t n) {
  n_values_ += n;
  if (n_values_ > rules_.max_values) return too_many("values", rules_.max_values);
  return {};
}

Result<void> Builder::count_object() {
  if (++n_objects_ > rules_.max_objects) return too_many("objects", rules_.max_objects);
  return {};
}

Result<Value> Builder::container(Kind kind) {
  XD_TRY(count_object());
  out_.containers_.emplace_back();
  return Value{kind, 0, out_.containers_.size() - 1};
}

Result<void> Builder::append(const Value& list, std::span<const Value> values) {
  if (list.kind != Kind::kList && list.kind != Kind::kOpaque)
    return corrupt(cat("expected a list to append to, found ", name_of(list.kind)));
  auto& to = out_.containers_[list.data];
  XD_TRY(count_values(values.size()));
  to.insert(to.end(), values.begin(), values.end());
  return {};
}

Result<void> Builder::set_items(const Value& dict, std::span<const Value> values) {
  if (dict.kind != Kind::kDict && dict.kind != Kind::kOpaque)
    return corrupt(cat("expected a dict to set items of, found ", name_of(dict.kind)));
  if (values.size() % 2 != 0) return corrupt("expected a value for each key, found an odd number");
  for (size_t i = 0; i < values.size(); i += 2) {
    const Kind key = values[i].kind;
    if (key == Kind::kList || key == Kind::kDict)
      return corrupt(cat("expected a key, found ", name_of(key)));
  }
  auto& to = out_.containers_[dict.data];
  XD_TRY(count_values(values.size()));
  to.insert(to.end(), values.begin(), values.end());
  return {};
}

Result<Value> Builder::tuple(std::span<const Value> values) {
  XD_TRY(count_values(values.size()));
  const Value out{Kind::kTuple, static_cast<uint32_t>(values.size()), out_.pool_.size()};
  out_.pool_.insert(out_.pool_.end(), values.begin(), values.end());
  return out;
}

// ("storage", class, key, location, number of elements[, None or (view key, first element, number
// of elements)])
Result<Value> Builder::storage(const Value& id) {
  const auto parts = id.kind == Kind::kTuple ? out_.tuple(id) : std::span<const Value>();
  const std::string_view what =
      !parts.empty() && parts[0].kind == Kind::kText ? out_.text(parts[0]) : "";
  const bool is_storage = (parts.size() == 5 || parts.size() == 6) && what == "storage" &&
                          parts[2].kind == Kind::kText && parts[3].kind == Kind::kText;
  // One of a type that we do not know, and a class that torch before 1.6 saved with its code.
  if (is_storage && parts[1].kind == Kind::kOpaque) return opaque_of(parts[1], {id}, true);
  if (what == "module" && parts.size() == 4 && parts[1].kind == Kind::kOpaque) return parts[1];
  if (!is_storage || !is_global(parts[1], Global::kStorage))
    return corrupt("expected a persistent id that names a storage, found another");
  Storage s;
  s.key = out_.text(parts[2]);
  s.element = static_cast<DType>(parts[1].length);
  XD_TRY_SET(s.n_elems, natural(parts[4], "a number of elements"));
  s.n_viewed = s.n_elems;
  if (!manifest::dense_bytes(s.element, s.n_elems))
    return corrupt("expected a storage below 2^64 bytes, found more");
  if (parts.size() == 6 && parts[5].kind != Kind::kNone) {
    const auto view =
        parts[5].kind == Kind::kTuple ? out_.tuple(parts[5]) : std::span<const Value>();
    if (view.size() != 3)
      return corrupt("expected the key, offset and size of a storage's view, found another");
    XD_TRY_SET(s.first, natural(view[1], "an offset"));
    XD_TRY_SET(s.n_viewed, natural(view[2], "a size"));
    if (s.first > s.n_elems || s.n_viewed > s.n_elems - s.first)
      return corrupt(cat("expected a view inside its storage of ", s.n_elems, " elements, found ",
                         s.n_viewed, " at ", s.first));
  }
  XD_TRY(count_object());
  out_.storages_.push_back(s);
  return Value{Kind::kStorage, 0, out_.storages_.size() - 1};
}

Result<std::vector<uint64_t>> Builder::naturals(const Value& v, std::string_view what) const {
  if (v.kind != Kind::kTuple)
    return corrupt(cat("expected a tuple of numbers, found ", name_of(v.kind)));
  if (v.length > kMaxDimensions) return too_many("dimensions", kMaxDimensions);
  std::vector<uint64_t> out;
  for (const Value& item : out_.tuple(v)) {
    XD_TRY_SET(const uint64_t n, natural(item, what));
    out.push_back(n);
  }
  return out;
}

Result<void> Builder::check_inside(const Tensor& t, const Storage& s) const {
  const auto n_elems = checked_product(t.shape);
  const auto n_bytes = n_elems ? manifest::dense_bytes(t.dtype, *n_elems) : std::nullopt;
  if (!n_bytes) return corrupt("expected a tensor below 2^64 bytes, found a shape that overflows");
  const uint64_t storage_bytes = s.n_viewed * manifest::info(s.element).bits / 8;
  uint64_t last = t.offset;
  if (*n_elems == 0) return {};
  for (size_t i = 0; i < t.shape.size(); ++i) {
    const auto step = checked_mul(t.shape[i] - 1, t.strides[i]);
    const auto sum = step ? checked_add(last, *step) : std::nullopt;
    if (!sum) return corrupt("expected strides inside the storage, found ones that overflow");
    last = *sum;
  }
  const uint64_t room = storage_bytes / (manifest::info(t.dtype).bits / 8);
  if (last >= room)
    return corrupt(cat("expected a tensor inside its storage of ", room,
                       " elements, found one that reaches element ", last));
  return {};
}

// The arguments that all three forms begin with: storage, offset, shape, strides.
Result<Value> Builder::rebuild_tensor(std::span<const Value> args, DType dtype) {
  if (args[0].kind != Kind::kStorage)
    return corrupt(cat("expected a tensor's storage, found ", name_of(args[0].kind)));
  const Storage& s = out_.storages_[args[0].data];
  Tensor t;
  t.storage = static_cast<uint32_t>(args[0].data);
  t.dtype = dtype == DType::UNSPECIFIED ? s.element : dtype;
  XD_TRY_SET(t.offset, natural(args[1], "an offset"));
  XD_TRY_SET(t.shape, naturals(args[2], "a size"));
  XD_TRY_SET(t.strides, naturals(args[3], "a stride"));
  if (t.shape.size() != t.strides.size()) {
    return corrupt(cat("expected a stride for each of ", t.shape.size(), " dimensions, found ",
                       t.strides.size()));
  }
  XD_TRY(count_values(t.shape.size()));  // as much memory again
  XD_TRY(check_inside(t, s));
  const uint64_t first_bits = s.first * manifest::info(s.element).bits;
  if (first_bits % manifest::info(t.dtype).bits != 0)
    return corrupt("expected a view at a whole element");
  t.offset += first_bits / manifest::info(t.dtype).bits;
  XD_TRY(count_object());
  out_.tensors_.push_back(std::move(t));
  return Value{Kind::kTensor, 0, out_.tensors_.size() - 1};
}

// What changes a tensor's values when they are read: lazy conjugates and negatives.
Result<void> Builder::check_metadata(std::span<const Value> args, size_t at) const {
  if (args.size() <= at || args[at].kind == Kind::kNone) return {};
  if (args[at].kind != Kind::kDict)
    return corrupt(cat("expected a tensor's metadata, found ", name_of(args[at].kind)));
  for (const std::string_view key : {"conj", "neg"}) {
    const Value* v = out_.find(args[at], key);
    if (v && !(v->kind == Kind::kBool && v->data == 0))
      return unsupported(cat("expected plain values, found a tensor that is marked \"", key,
                             "\": save its resolve_", key, "() instead"));
  }
  return {};
}

Result<Value> Builder::parameter(std::span<const Value> args) {
  if (args[0].kind != Kind::kTensor)
    return corrupt(cat("expected a parameter's tensor, found ", name_of(args[0].kind)));
  Tensor t = out_.tensors_[args[0].data];
  t.is_parameter = true;
  t.requires_grad = args[1].kind == Kind::kBool && args[1].data != 0;
  XD_TRY(count_object());
  out_.tensors_.push_back(std::move(t));
  return Value{Kind::kTensor, 0, out_.tensors_.size() - 1};
}

// A tensor as the CPU has it, for another device (XLA): .to(dtype), which changes nothing when the
// dtype is its own.
Result<Value> Builder::from_cpu_tensor(std::span<const Value> args) const {
  if (args[0].kind != Kind::kTensor)
    return corrupt(cat("expected a device's tensor, found ", name_of(args[0].kind)));
  const DType own = out_.tensors_[args[0].data].dtype;
  if (!is_global(args[1], Global::kDType))
    return corrupt(cat("expected a dtype, found ", name_of(args[1].kind)));
  if (const auto dtype = static_cast<DType>(args[1].length); dtype != own)
    return unsupported(cat("expected a device's tensor in its own type, ", manifest::info(own).name,
                           ", found one that ", "loading casts to ", manifest::info(dtype).name,
                           ": save its .cpu() instead"));
  return args[0];
}

Pickle Builder::finish(const Value& root, uint64_t end) && {
  out_.root_ = root;
  out_.end_ = end;
  return std::move(out_);
}

}  // namespace crossdock::torch_read
