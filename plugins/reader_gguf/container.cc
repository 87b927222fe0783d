// SPDX-License-Identifier: Apache-2.0
#include "plugins/reader_gguf/container.h"

#include <crossdock/bytes.hpp>

#include <simdjson.h>

#include <algorithm>
#include <unordered_set>

#include "plugins/common/magic.h"
#include "plugins/common/quote.h"
#include "plugins/reader_gguf/stream.h"

namespace crossdock::reader_gguf {

namespace {

using common::in_quotes;
using manifest::Value;

constexpr uint64_t kDefaultAlignment = 32;
constexpr uint32_t kMaxDims = 4;  // GGML_MAX_DIMS
constexpr size_t kMaxName = 63;   // GGML_MAX_NAME, less the final 0
constexpr uint64_t kMaxValues =
    4 << 20;  // ours: a vocabulary of a million tokens has about as many values
constexpr uint64_t kMaxKey = 64 << 10;     // ours, in bytes; as ggml's
constexpr uint64_t kMaxText = 16 << 20;    // ours
constexpr uint64_t kMaxTexts = 256 << 20;  // ours: of all texts together
constexpr uint64_t kMinTensorBytes = 8 + 4 + 4 + 8, kMinValueBytes = 8 + 4 + 1;

enum class ValueType : uint32_t {
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kF32,
  kBool,
  kText,
  kArray,
  kU64,
  kI64,
  kF64,
  kCount
};
constexpr uint64_t kValueBytes[] = {1, 1, 2, 2, 4, 4, 4,
                                    1, 8, 0, 8, 8, 8};  // of a text, its length alone

bool is_utf8(std::string_view text) { return simdjson::validate_utf8(text.data(), text.size()); }

// Text that is not UTF-8 is kept as bytes.
Value text_value(std::string text) {
  Value out;
  if (is_utf8(text)) {
    out.kind = std::move(text);
  } else {
    out.kind = manifest::Bytes{std::move(text)};
  }
  return out;
}

// What begins with these four bytes instead.
Error foreign(std::string_view magic) {
  if (const std::string_view what = common::what_begins_with(magic); !what.empty())
    return unsupported(cat("expected a GGUF file, found ", what));
  return corrupt(cat("expected a GGUF file to begin with \"GGUF\", found ", in_quotes(magic)));
}

class Parser {
 public:
  Parser(const ReadAt& read, uint64_t file_size) : in_(read, file_size), file_size_(file_size) {}

  Result<Container> parse() {
    XD_TRY(begin());
    const auto n_tensors = in_.number<uint64_t>(), n_values = in_.number<uint64_t>();
    XD_TRY(ok());
    XD_TRY(check_count("tensors", n_tensors, kMinTensorBytes));
    XD_TRY(check_count("metadata values", n_values, kMinValueBytes));
    for (uint64_t i = 0; i < n_values; ++i) XD_TRY(add_value());
    XD_TRY_SET(const uint64_t alignment, this->alignment());
    for (uint64_t i = 0; i < n_tensors; ++i) XD_TRY(add_tensor(alignment));
    XD_TRY(place_tensors(alignment));
    return std::move(out_);
  }

 private:
  Result<void> ok() const { return in_.failed() ? Result<void>(in_.error()) : Result<void>(); }

  Result<void> begin() {
    char magic[4];
    for (char& c : magic) c = static_cast<char>(in_.number<uint8_t>());
    XD_TRY(ok());
    if (std::string_view(magic, 4) != "GGUF") return foreign({magic, 4});
    auto version = in_.number<uint32_t>();
    XD_TRY(ok());
    if ((version & 0xffff) == 0 && version != 0) {  // as ggml tells the byte order
      out_.big_endian = true;
      in_.swap_bytes();
      version = __builtin_bswap32(version);
    }
    out_.version = version;
    if (version == 2 || version == 3) return {};
    return unsupported(cat("expected version 2 or 3 of GGUF, found ", version,
                           version == 1 ? ": convert the model again, to a file of today" : ""));
  }

  // So that no count can ask for more than the file could hold.
  Result<void> check_count(const char* what, uint64_t n, uint64_t least_bytes) const {
    if (n <= in_.left() / least_bytes) return {};
    return corrupt(cat("expected at most ", in_.left() / least_bytes, ' ', what, ", which is what ",
                       in_.left(), " bytes can hold, found a count of ", n));
  }

  Result<Value> scalar(ValueType type) {
    if (++n_values_ > kMaxValues)
      return unsupported(
          cat("expected at most ", kMaxValues, " values in the metadata, found more"));
    Value out;
    const auto integer = [&](auto v) { out.kind = static_cast<int64_t>(v); };
    switch (type) {
      case ValueType::kU8:
        integer(in_.number<uint8_t>());
        break;
      case ValueType::kI8:
        integer(in_.number<int8_t>());
        break;
      case ValueType::kU16:
        integer(in_.number<uint16_t>());
        break;
      case ValueType::kI16:
        integer(in_.number<int16_t>());
        break;
      case ValueType::kU32:
        integer(in_.number<uint32_t>());
        break;
      case ValueType::kI32:
        integer(in_.number<int32_t>());
        break;
      case ValueType::kI64:
        integer(in_.number<int64_t>());
        break;
      case ValueType::kF32:
        out.kind = double{in_.number<float>()};
        break;
      case ValueType::kF64:
        out.kind = in_.number<double>();
        break;
      case ValueType::kText: {
        std::string text = in_.text(std::min(kMaxText, kMaxTexts - n_text_));
        n_text_ += text.size();
        return text_value(std::move(text));
      }
      case ValueType::kU64: {
        const auto v = in_.number<uint64_t>();
        if (v <= INT64_MAX) {
          integer(v);
        } else {
          out.kind = v;
        }
        break;
      }
      case ValueType::kBool: {
        const auto v = in_.number<uint8_t>();
        if (v > 1) return corrupt(cat("expected a bool of 0 or 1, found ", v));
        out.kind = v == 1;
        break;
      }
      case ValueType::kArray:
      case ValueType::kCount:
        return Error{XD_INTERNAL, "no scalar"};
    }
    return out;
  }

  Result<Value> value(ValueType type) {
    if (type != ValueType::kArray) return scalar(type);
    const auto elem = in_.number<uint32_t>();
    const auto n = in_.number<uint64_t>();
    XD_TRY(ok());
    if (elem == static_cast<uint32_t>(ValueType::kArray))
      return unsupported(
          "expected an array of plain values, found an array of arrays, which ggml does not read "
          "either");
    if (elem >= static_cast<uint32_t>(ValueType::kCount))
      return corrupt(cat("expected a type of 0 to 12, found ", elem));
    XD_TRY(check_count("array elements", n, kValueBytes[elem]));
    manifest::ValueList list;
    list.values.reserve(std::min(n, kMaxValues));
    for (uint64_t i = 0; i < n && !in_.failed(); ++i) {
      XD_TRY_SET(list.values.emplace_back(), scalar(static_cast<ValueType>(elem)));
    }
    Value out;
    out.kind = std::move(list);
    return out;
  }

  Result<void> add_value() {
    std::string key = in_.text(kMaxKey);
    const auto type = in_.number<uint32_t>();
    XD_TRY(ok());
    if (key.empty() || !is_utf8(key))
      return corrupt(cat("expected a metadata key in UTF-8, found ", in_quotes(key)));
    if (!keys_.insert(key).second)
      return corrupt(cat("expected different metadata keys, found ", in_quotes(key), " twice"));
    const auto where = [&](Error e) { return std::move(e).in(cat("metadata ", in_quotes(key))); };
    if (type >= static_cast<uint32_t>(ValueType::kCount))
      return where(corrupt(cat("expected a type of 0 to 12, found ", type)));
    auto v = value(static_cast<ValueType>(type));
    if (!v) return where(std::move(v).error());
    if (in_.failed()) return where(in_.error());
    if (key == "general.alignment" && type != static_cast<uint32_t>(ValueType::kU32))
      return where(
          corrupt(cat("expected an unsigned integer of 32 bits (type 4), found type ", type)));
    out_.metadata.push_back({std::move(key), *std::move(v)});
    return {};
  }

  Result<uint64_t> alignment() const {
    const Value* v = out_.find("general.alignment");
    if (!v) return kDefaultAlignment;
    const auto n = static_cast<uint64_t>(*v->get<int64_t>());
    if (n != 0 && (n & (n - 1)) == 0) return n;
    return corrupt(cat("expected general.alignment to be a power of two, found ", n));
  }

  Result<void> add_tensor(uint64_t alignment) {
    TensorInfo t;
    t.name = in_.text(kMaxKey);
    const auto n_dims = in_.number<uint32_t>();
    XD_TRY(ok());
    if (t.name.empty() || t.name.size() > kMaxName || !is_utf8(t.name))
      return corrupt(cat("expected tensor names of 1 to ", kMaxName, " bytes in UTF-8, found ",
                         in_quotes(t.name)));
    const auto where = [&](Error e) { return std::move(e).in(cat("tensor ", in_quotes(t.name))); };
    if (!names_.insert(t.name).second)
      return corrupt(cat("expected different tensors, found ", in_quotes(t.name), " twice"));
    if (n_dims > kMaxDims)
      return where(corrupt(cat("expected at most ", kMaxDims, " dimensions, found ", n_dims)));
    t.shape.resize(n_dims);
    for (uint64_t& dim : t.shape) dim = in_.number<uint64_t>();
    const auto type = in_.number<uint32_t>();
    t.offset = in_.number<uint64_t>();
    if (in_.failed()) return where(in_.error());
    if (auto r = measure(t, type); !r) return where(std::move(r).error());
    if (t.offset % alignment != 0)
      return where(corrupt(
          cat("expected an offset that is a multiple of ", alignment, ", found ", t.offset)));
    out_.tensors.push_back(std::move(t));
    return {};
  }

  // The file has the innermost dimension first; rows along it are whole blocks.
  static Result<void> measure(TensorInfo& t, uint32_t type) {
    t.type = find_type(type);
    if (!t.type)
      return unsupported(cat("expected a type of stored weights, found ", why_not(type)));
    if (std::find(t.shape.begin(), t.shape.end(), 0) != t.shape.end())
      return corrupt("expected dimensions of 1 or more, found 0");
    const auto n = checked_product(t.shape);
    if (!n || *n > INT64_MAX)
      return corrupt("expected a shape whose size fits 63 bits, found one that does not");
    const uint64_t row = t.shape.empty() ? 1 : t.shape[0];
    if (row % t.type->block_elems != 0) {
      return corrupt(cat("expected rows of whole blocks of ", t.type->block_elems, " elements of ",
                         t.type->name, ", found rows of ", row));
    }
    const auto n_bytes = checked_mul(*n / t.type->block_elems, t.type->block_bytes);
    if (!n_bytes || *n_bytes > INT64_MAX)
      return corrupt("expected a size that fits 63 bits, found one that does not");
    t.n_elems = *n;
    t.n_bytes = *n_bytes;
    std::reverse(t.shape.begin(), t.shape.end());
    return {};
  }

  // Each tensor begins where the padding of the one before it ends.
  Result<void> place_tensors(uint64_t alignment) {
    uint64_t expected = 0;
    const uint64_t data = round_up(in_.offset(), alignment);
    for (TensorInfo& t : out_.tensors) {
      const auto where = [&](Error e) {
        return std::move(e).in(cat("tensor ", in_quotes(t.name)));
      };
      if (t.offset != expected)
        return where(corrupt(cat("expected its data at offset ", expected,
                                 ", right after the tensor before it, found ", t.offset)));
      const uint64_t room = file_size_ > data ? file_size_ - data : 0;
      if (t.offset > room || t.n_bytes > room - t.offset) {
        return where(corrupt(cat("expected ", t.n_bytes, " bytes at byte ", data, " + ", t.offset,
                                 ", found the file's end at ", file_size_,
                                 ": the file is cut off, download it again")));
      }
      expected = round_up(t.offset + t.n_bytes, alignment);
      t.offset += data;
    }
    return {};
  }

  Stream in_;
  const uint64_t file_size_;
  uint64_t n_values_ = 0, n_text_ = 0;
  Container out_;
  std::unordered_set<std::string> keys_, names_;
};

}  // namespace

const Value* Container::find(std::string_view key) const {
  for (const manifest::KeyValue& entry : metadata) {
    if (entry.key == key) return &entry.value;
  }
  return nullptr;
}

Result<Container> parse_container(const ReadAt& read, uint64_t file_size) {
  return Parser(read, file_size).parse();
}

}  // namespace crossdock::reader_gguf
