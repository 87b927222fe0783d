// SPDX-License-Identifier: Apache-2.0

// Emits pickles that torch.load reads, with weights_only too: Python's plain values, and tensors
// whose bytes are records of the same FileLayout. Protocol 2, as torch.save. Nothing is ever
// executed or read back here.
//
//   PickleWriter p;
//   p.dict([&] {
//     p.entry("param", PickledTensor::dense(DType::F32, {2, 3}, 0));   // its bytes are storage 0
//     p.entry("cat_dim", 0);
//     p.entry("groups", [&] { p.list([&] { p.put(None{}); }); });
//     p.entry("options", EmptyDict{});
//   });
//   FileLayout file(std::move(p).finish(), {24});
//
// A container's body puts its elements in order: values, or for the dicts a key and a value in
// turn. PickleWriter(Memo::kOn) puts each text and each name of a module once and refers to it from
// then on, for pickles of many like objects. Not thread-safe; a value of its caller.
#pragma once

#include <crossdock/dtype.hpp>

#include <concepts>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <unordered_map>
#include <vector>

namespace crossdock::torch_write {

struct None {};
struct EmptyList {};
struct EmptyDict {};

// A tensor over storage `storage` (record data/<storage>) of `n_elems` elements.
struct PickledTensor {
  manifest::DType dtype = manifest::DType::F32;
  std::vector<uint64_t> shape;   // each, and the product of all that are not 0, below 2^63
  std::vector<int64_t> strides;  // in elements
  uint64_t storage = 0;
  uint64_t n_elems = 0;
  uint64_t offset = 0;  // of the first element, in elements

  // Row-major over a storage of its own.
  static PickledTensor dense(manifest::DType dtype, std::vector<uint64_t> shape, uint64_t storage);
  // Every element is the one in the storage: all strides are zero.
  static PickledTensor repeated(manifest::DType dtype, std::vector<uint64_t> shape,
                                uint64_t storage);
};

// Whether torch has this element type: all but the sub-byte ones.
bool torch_has(manifest::DType dtype);
// Its name in module torch: "bfloat16". Empty: torch has none.
std::string_view torch_name(manifest::DType dtype);

enum class Memo { kOff, kOn };

class PickleWriter {
 public:
  explicit PickleWriter(Memo memo = Memo::kOff) : has_memo_(memo == Memo::kOn) {
    out_.reserve(256);  // of one tensor
    out_ = "\x80\x02";
  }

  void put(None) { out_ += 'N'; }
  void put(EmptyList) { out_ += ']'; }
  void put(EmptyDict) { out_ += '}'; }
  void put(std::same_as<bool> auto value) { out_ += value ? '\x88' : '\x89'; }
  template <std::integral T>
  requires(!std::same_as<T, bool>) void put(T value) { integer(static_cast<int64_t>(value)); }
  void put(double value);
  void put(std::string_view text);  // UTF-8
  void put(const char* text) { put(std::string_view(text)); }
  void put(const std::string& text) { put(std::string_view(text)); }
  void put(const PickledTensor& tensor);
  void put(std::invocable auto&& body) { body(); }  // which puts one value

  void list(std::invocable auto&& body) { container("]", 'e', body); }
  void tuple(std::invocable auto&& body) {
    out_ += '(';
    body();
    out_ += 't';
  }
  void dict(std::invocable auto&& body) { container("}", 'u', body); }
  void ordered_dict(std::invocable auto&& body) {
    container("ccollections\nOrderedDict\n)R", 'u', body);
  }
  void torch_size(std::span<const uint64_t> shape);
  // A Python object of a class, with these attributes: entries as of a dict. It is made without
  // __init__. Readers that run nothing (weights_only) refuse it.
  void object(std::string_view module, std::string_view name, std::invocable auto&& body) {
    object_of_state(module, name, [&] { dict(body); });
  }
  // The same of a class whose state (__getstate__) is another value, which `body` puts.
  void object_of_state(std::string_view module, std::string_view name, std::invocable auto&& body) {
    global(module, name);
    out_ += ")\x81";
    body();
    out_ += 'b';
  }
  // What a call gives; `body` puts the arguments.
  void call(std::string_view module, std::string_view name, std::invocable auto&& body) {
    global(module, name);
    tuple(body);
    out_ += 'R';
  }
  // A name of a Python module as a value: a class, a dtype.
  void global(std::string_view module, std::string_view name);

  // A key of a dict and its value.
  template <class Key, class Value>
  void entry(const Key& key, Value&& value) {
    put(key);
    put(std::forward<Value>(value));
  }

  std::string finish() && { return std::move(out_ += '.'); }

 private:
  // Remembers what has been put since `begin`, or takes it back and refers to what is the same.
  void remember(size_t begin);
  void integer(int64_t value);
  template <class Number>
  void integers(const std::vector<Number>& values);

  void container(std::string_view empty, char fill, auto& body) {
    out_ += empty;
    out_ += '(';
    const size_t begin = out_.size();
    body();
    if (out_.size() == begin) {
      out_.pop_back();  // nothing to fill it with
    } else {
      out_ += fill;
    }
  }

  const bool has_memo_;
  std::unordered_map<std::string, uint32_t> memo_;  // opcodes -> index
  std::string out_;
};

}  // namespace crossdock::torch_write
