// SPDX-License-Identifier: Apache-2.0

// Makes the values, storages and tensors that the opcodes of a pickle ask for, within the limits of
// pickle.h. What Python would call here, it only describes.
#pragma once

#include "plugins/torch/read/globals.h"
#include "plugins/torch/read/pickle.h"

namespace crossdock::torch_read {

class Builder {
 public:
  Builder(std::string_view bytes, const PickleRules& rules) : rules_(rules) { out_.bytes_ = bytes; }

  // Of those that are held anywhere: the machine counts its stack and memo too.
  Result<void> count_values(size_t n);
  void forget_values(size_t n) { n_values_ -= n; }

  Result<Value> container(Kind kind);
  // To a list or dict; an opaque value keeps what is put into it too.
  Result<void> append(const Value& list, std::span<const Value> values);
  Result<void> set_items(const Value& dict, std::span<const Value> values);
  Result<Value> tuple(std::span<const Value> values);
  Result<Value> global(const Value& module, const Value& name);
  // What a persistent id stands for.
  Result<Value> storage(const Value& id);
  // What a call would give.
  Result<Value> call(const Value& function, const Value& arguments) {
    return call(function, arguments, false);
  }
  // What cls.__new__(cls, *arguments) would give, of a class that we do not know.
  Result<Value> instance(const Value& type, const Value& arguments);

  // The bytes that the values refer to.
  std::string_view bytes() const { return out_.bytes_; }
  Pickle finish(const Value& root, uint64_t end) &&;

 private:
  Result<void> count_object();
  Result<Value> call(const Value& function, const Value& arguments, bool nested);
  Result<Value> opaque(const Value& module, const Value& name, std::initializer_list<Value> parts,
                       bool holds_values);
  Result<Value> opaque_of(const Value& named, std::initializer_list<Value> parts,
                          bool holds_values);
  Result<Value> call_of_opaque(const Value& function, const Value& arguments);
  Result<Value> from_type(const Value& arguments, bool nested);
  Result<Value> from_cpu_tensor(std::span<const Value> args) const;
  Result<Value> dict_of(std::span<const Value> args);
  Result<std::vector<uint64_t>> naturals(const Value& v, std::string_view what) const;
  Result<void> check_inside(const Tensor& t, const Storage& s) const;
  Result<Value> rebuild_tensor(std::span<const Value> args, manifest::DType dtype);
  Result<void> check_metadata(std::span<const Value> args, size_t at) const;
  Result<Value> parameter(std::span<const Value> args);

  const PickleRules rules_;
  Pickle out_;
  size_t n_values_ = 0, n_objects_ = 0;
};

Error too_many(std::string_view what, size_t limit);

inline bool is_global(const Value& v, Global what) {
  return v.kind == Kind::kGlobal && v.data == static_cast<uint64_t>(what);
}

}  // namespace crossdock::torch_read
