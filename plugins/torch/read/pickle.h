// SPDX-License-Identifier: Apache-2.0

// Reads the pickles of torch.save without running anything.
//
// A pickle is a program. This machine knows the opcodes of protocols 2 and 3 (and 4, where its
// caller asks for it), and the globals that plain values and tensors need, as torch's own
// weights_only loader does (torch 2.13, _weights_only_unpickler.py). What a pickle "calls" here
// only makes values of the kinds below: no module is imported and no code runs, whatever it says.
// An object of any other class is opaque: its name, and the values that it was made of. Time and
// memory are bounded by the length of the input and the limits below.
#pragma once

#include <crossdock/bytes.hpp>
#include <crossdock/dtype.hpp>
#include <crossdock/result.hpp>

#include <bit>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace crossdock::torch_read {

inline constexpr uint64_t kMaxPickleBytes = 256 << 20;
inline constexpr size_t kMaxMarks =
    10'000;  // containers that are being filled, one inside the other
inline constexpr size_t kMaxObjects =
    2'000'000;  // lists, dicts, opaques, storages and tensors, some 200 bytes each
inline constexpr size_t kMaxValues =
    16'000'000;  // on the stack, in the memo and in all containers, 16 bytes each
inline constexpr size_t kMaxDimensions = 64;

// What a pickle may be, for those of torch.save if nothing else is said.
struct PickleRules {
  uint8_t max_protocol = 3;  // 5: that of Python 3.14, of whose own opcodes none is taken
  size_t max_objects = kMaxObjects, max_values = kMaxValues;
};

enum class Kind : uint8_t {
  kNone,
  kBool,
  kInt,
  kFloat,
  kText,
  kList,
  kTuple,
  kDict,
  kGlobal,
  kStorage,
  kTensor,
  kNothing,  // a gap of the memo; never a value
  kOther,    // bytes, devices, large integers, ...: values that no tensor needs
  kOpaque,   // a class or function that we do not know, or what a call of one would give
};
std::string_view name_of(Kind kind);

// Small and flat; what it refers to is in the Pickle it belongs to.
struct Value {
  Kind kind = Kind::kNone;
  uint32_t length = 0;  // text, tuple; opaque: whether it stands for a tensor or array
  uint64_t data = 0;    // bool, int: the number; float: its bits; text: where it begins; tuple: its
                        // first value; else an index

  double real() const { return std::bit_cast<double>(data); }  // of a float
};

struct Storage {
  std::string_view key;
  // The elements as the storage's class has them. UntypedStorage counts bytes: then element is U8.
  manifest::DType element = manifest::DType::U8;
  uint64_t n_elems = 0;  // of the whole root storage
  uint64_t first =
      0;  // a view of the root storage begins at this element; files of torch 0.2 have such
  uint64_t n_viewed = 0;

  uint64_t n_bytes() const { return n_elems * manifest::info(element).bits / 8; }  // checked
};

struct Tensor {
  uint32_t storage = 0;
  manifest::DType dtype = manifest::DType::UNSPECIFIED;
  uint64_t offset = 0;  // of the first element, in elements from the start of the root storage
  std::vector<uint64_t> shape;
  std::vector<uint64_t> strides;  // in elements
  bool is_parameter = false;
  bool requires_grad = false;

  uint64_t n_elems() const { return *checked_product(shape); }  // checked
  // Row-major and without gaps, so that its elements are one range of the storage.
  bool is_dense() const;
};

// What a pickle says. Borrows its bytes.
class Pickle {
 public:
  const Value& root() const { return root_; }
  uint64_t end() const { return end_; }  // where the next pickle of a stream begins

  std::string_view text(const Value& v) const { return bytes_.substr(v.data, v.length); }
  std::span<const Value> tuple(const Value& v) const {
    return std::span(pool_).subspan(v.data, v.length);
  }
  // A list's values, a dict's keys and values in turn, or an opaque's module and name and all that
  // it was made of.
  std::span<const Value> items(const Value& v) const { return containers_[v.data]; }
  // Of an opaque, as in "argparse.Namespace".
  std::string class_of(const Value& v) const;
  // Of an opaque that a call of one argument made, as Python's enums are: that argument. Else null.
  const Value* argument_of(const Value& opaque) const;
  // The dict of the attributes that an opaque object was given. Null: none was.
  const Value* attributes_of(const Value& opaque) const;
  size_t n_containers() const { return containers_.size(); }
  const Tensor& tensor(const Value& v) const { return tensors_[v.data]; }
  const Storage& storage(uint64_t i) const { return storages_[i]; }
  size_t n_storages() const { return storages_.size(); }

  // The value of a text key; the last one, as in Python, if it is there twice.
  const Value* find(const Value& dict, std::string_view key) const;

 private:
  friend class Builder;
  std::string_view bytes_;
  Value root_;
  uint64_t end_ = 0;
  std::vector<Value> pool_;
  std::vector<std::vector<Value>> containers_;
  std::vector<Storage> storages_;
  std::vector<Tensor> tensors_;
};

// Reads the pickle that begins at `begin`. XD_OUT_OF_RANGE when the bytes end before it does.
Result<Pickle> read_pickle(std::string_view bytes, uint64_t begin = 0,
                           const PickleRules& rules = {});

}  // namespace crossdock::torch_read
