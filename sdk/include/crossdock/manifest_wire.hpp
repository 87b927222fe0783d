// SPDX-License-Identifier: Apache-2.0

// The messages of manifest.proto as plain structs, and their protobuf wire form, without
// libprotobuf.
//
// Two copies of protobuf's generated code in one process abort at load, so a plugin must not bring
// its own; it uses this instead, and so does the host for its model. manifest.proto says what each
// field means. Every struct lists its fields once, in fields(); the encoder, the decoder and
// operator== all walk that list. A test walks libprotobuf's descriptors and sends every field
// through both implementations, so a field that is missing here cannot go unseen.
//
//   std::string bytes = manifest::encode(m);
//   Result<manifest::Manifest> m = manifest::decode<manifest::Manifest>(bytes);
//
// Wire format: https://protobuf.dev/programming-guides/encoding/
#pragma once

#include <crossdock/bytes.hpp>
#include <crossdock/dtype.hpp>
#include <crossdock/result.hpp>

#include <string>
#include <type_traits>
#include <variant>
#include <vector>

namespace crossdock::manifest {

inline constexpr uint32_t kSchemaVersion = 1;
inline constexpr int kMaxDepth = 100;  // nested messages; libprotobuf's own default

enum class Role : uint32_t { kUnspecified, kParameter, kBuffer, kOptimizerState };
enum class Training : uint32_t { kUnspecified, kTrainable, kFrozen };
enum class Pattern : uint32_t { kUnique, kReplicated, kSharded, kVocab, kSubParameters, kExpert };
enum class AuxKind : uint32_t {
  kUnspecified,
  kConfig,
  kGenerationConfig,
  kTokenizer,
  kProcessor,
  kTrainer
};

struct Bytes {  // a `bytes` field: not text
  std::string data;
  bool operator==(const Bytes&) const = default;
};
struct Null {
  bool operator==(const Null&) const = default;
};

struct Value;
struct KeyValue;
struct ValueList {
  std::vector<Value> values;
  static void fields(auto& self, auto&& f) { f(1, self.values); }
  bool operator==(const ValueList&) const = default;
};
struct ValueMap {
  std::vector<KeyValue> entries;
  static void fields(auto& self, auto&& f) { f(1, self.entries); }
  const Value* find(std::string_view key) const;
  bool operator==(const ValueMap&) const = default;
};
struct Value {
  std::variant<std::monostate, Null, bool, int64_t, uint64_t, double, std::string, Bytes, ValueList,
               ValueMap>
      kind;
  static void fields(auto& self, auto&& f) { f.one_of(1, self.kind); }
  template <class T>
  const T* get() const {
    return std::get_if<T>(&kind);
  }
  bool operator==(const Value&) const = default;
};
struct KeyValue {
  std::string key;
  Value value;
  static void fields(auto& self, auto&& f) {
    f(1, self.key);
    f(2, self.value);
  }
  bool operator==(const KeyValue&) const = default;
};
inline const Value* ValueMap::find(std::string_view key) const {
  for (const KeyValue& entry : entries) {
    if (entry.key == key) return &entry.value;
  }
  return nullptr;
}

struct File {
  std::string name;
  uint64_t size = 0;
  std::string digest;
  std::string path = {};
  static void fields(auto& self, auto&& f) {
    f(1, self.name);
    f(2, self.size);
    f(3, self.digest);
    f(4, self.path);
  }
  bool operator==(const File&) const = default;
};
struct Source {
  std::string format;
  std::vector<File> files;
  std::vector<KeyValue> metadata;
  Value config;
  static void fields(auto& self, auto&& f) {
    f(1, self.format);
    f(2, self.files);
    f(3, self.metadata);
    f(4, self.config);
  }
  bool operator==(const Source&) const = default;
};
struct Extent {
  uint32_t file = 0;
  uint64_t offset = 0;
  uint64_t length = 0;
  static void fields(auto& self, auto&& f) {
    f(1, self.file);
    f(2, self.offset);
    f(3, self.length);
  }
  bool operator==(const Extent&) const = default;
};
struct Parallel {
  Pattern pattern = Pattern::kUnique;
  uint32_t dim = 0;
  std::vector<uint64_t> sub_sizes;
  uint64_t experts = 0;
  static void fields(auto& self, auto&& f) {
    f(1, self.pattern);
    f(2, self.dim);
    f(3, self.sub_sizes);
    f(4, self.experts);
  }
  bool operator==(const Parallel&) const = default;
};
struct Tensor {
  std::string name;
  DType dtype = DType::UNSPECIFIED;
  std::vector<uint64_t> shape;
  std::vector<Extent> extents;
  std::string encoding;
  std::vector<int64_t> strides;
  uint64_t storage_offset = 0;
  Role role = Role::kUnspecified;
  Training train = Training::kUnspecified;
  Parallel parallel;
  std::string excluded;
  std::string target_name;
  std::string expression;
  uint64_t storage_elements = 0;
  static void fields(auto& self, auto&& f) {
    f(1, self.name);
    f(2, self.dtype);
    f(3, self.shape);
    f(4, self.extents);
    f(5, self.encoding);
    f(6, self.strides);
    f(7, self.storage_offset);
    f(8, self.role);
    f(9, self.train);
    f(10, self.parallel);
    f(11, self.excluded);
    f(12, self.target_name);
    f(13, self.expression);
    f(14, self.storage_elements);
  }
  // The name in the target model.
  const std::string& target() const { return target_name.empty() ? name : target_name; }
  void set_target(const std::string& wanted) { target_name = wanted == name ? "" : wanted; }
  bool operator==(const Tensor&) const = default;
};
struct AliasGroup {
  std::vector<uint64_t> tensors;
  static void fields(auto& self, auto&& f) { f(1, self.tensors); }
  bool operator==(const AliasGroup&) const = default;
};
struct ParameterGroup {
  std::vector<uint64_t> tensors;
  std::vector<KeyValue> hyper_parameters;
  static void fields(auto& self, auto&& f) {
    f(1, self.tensors);
    f(2, self.hyper_parameters);
  }
  bool operator==(const ParameterGroup&) const = default;
};
struct Moment {
  std::string kind;
  uint64_t parameter = 0;
  uint64_t state = 0;
  static void fields(auto& self, auto&& f) {
    f(1, self.kind);
    f(2, self.parameter);
    f(3, self.state);
  }
  bool operator==(const Moment&) const = default;
};
struct TrainingState {
  uint64_t step = 0;
  std::string optimizer;
  std::vector<ParameterGroup> groups;
  std::vector<Moment> moments;
  static void fields(auto& self, auto&& f) {
    f(1, self.step);
    f(2, self.optimizer);
    f(3, self.groups);
    f(4, self.moments);
  }
  bool operator==(const TrainingState&) const = default;
};
struct AuxFile {
  AuxKind kind = AuxKind::kUnspecified;
  std::string name;
  std::variant<std::monostate, std::string, Bytes>
      content;  // the input object's name, or the bytes
  static void fields(auto& self, auto&& f) {
    f(1, self.kind);
    f(2, self.name);
    f.one_of(3, self.content);
  }
  bool operator==(const AuxFile&) const = default;
};
struct Provenance {
  std::string tool;
  std::string plugin;
  std::string input;
  static void fields(auto& self, auto&& f) {
    f(1, self.tool);
    f(2, self.plugin);
    f(3, self.input);
  }
  bool operator==(const Provenance&) const = default;
};
struct ModuleName {
  std::string name;
  uint64_t tensor = 0;
  static void fields(auto& self, auto&& f) {
    f(1, self.name);
    f(2, self.tensor);
  }
  bool operator==(const ModuleName&) const = default;
};
struct Manifest {
  uint32_t schema_version = kSchemaVersion;
  Source source;
  std::vector<Tensor> tensors;
  std::vector<AliasGroup> alias_groups;
  TrainingState training;
  std::vector<AuxFile> aux_files;
  std::vector<Provenance> provenance;
  std::vector<ModuleName> module;
  static void fields(auto& self, auto&& f) {
    f(1, self.schema_version);
    f(2, self.source);
    f(3, self.tensors);
    f(4, self.alias_groups);
    f(5, self.training);
    f(6, self.aux_files);
    f(7, self.provenance);
    f(8, self.module);
  }
  bool operator==(const Manifest&) const = default;
};

namespace wire {

enum Type : uint32_t { kVarint = 0, kFixed64 = 1, kLength = 2, kFixed32 = 5 };

template <class T>
inline constexpr bool is_scalar = std::is_integral_v<T> || std::is_enum_v<T>;
template <class T>
inline constexpr bool is_text = std::is_same_v<T, std::string> || std::is_same_v<T, Bytes>;
template <class T>
inline constexpr bool is_vector = false;
template <class T>
inline constexpr bool is_vector<std::vector<T>> = true;
template <class T>
inline constexpr bool is_scalar_vector = false;
template <class T>
inline constexpr bool is_scalar_vector<std::vector<T>> = is_scalar<T>;

inline std::string& text_of(std::string& s) { return s; }
inline std::string& text_of(Bytes& b) { return b.data; }
inline const std::string& text_of(const std::string& s) { return s; }
inline const std::string& text_of(const Bytes& b) { return b.data; }

class Encoder {
 public:
  explicit Encoder(std::string& out) : out_(out) {}

  template <class T>
  void operator()(uint32_t number, const T& field) {
    put(number, field, /*always=*/false);
  }

  template <class... Ts>
  void one_of(uint32_t first, const std::variant<Ts...>& field) {
    std::visit(
        [&](const auto& value) {
          if constexpr (!std::is_same_v<std::decay_t<decltype(value)>, std::monostate>) {
            put(first + static_cast<uint32_t>(field.index()) - 1, value, /*always=*/true);
          }
        },
        field);
  }

 private:
  void varint(uint64_t v) {
    for (; v >= 0x80; v >>= 7) out_.push_back(static_cast<char>(v | 0x80));
    out_.push_back(static_cast<char>(v));
  }
  void tag(uint32_t number, Type type) { varint(uint64_t{number} << 3 | type); }

  // Bodies are appended first and their length put in front of them, so no size pass is needed.
  void body(uint32_t number, bool always, auto&& write) {
    const size_t start = out_.size();
    write();
    const size_t length = out_.size() - start;
    if (length == 0 && !always) return;
    std::string head;
    Encoder h(head);
    h.tag(number, kLength);
    h.varint(length);
    out_.insert(start, head);
  }

  template <class T>
  void put(uint32_t number, const T& field, bool always) {
    if constexpr (std::is_same_v<T, Null>) {
      tag(number, kVarint);
      varint(1);
    } else if constexpr (is_scalar<T>) {
      if (field == T{} && !always) return;
      tag(number, kVarint);
      varint(static_cast<uint64_t>(field));
    } else if constexpr (std::is_same_v<T, double>) {
      tag(number, kFixed64);
      put_le(out_, std::bit_cast<uint64_t>(field));
    } else if constexpr (is_text<T>) {
      body(number, always, [&] { out_ += text_of(field); });
    } else if constexpr (is_scalar_vector<T>) {
      body(number, false, [&] {
        for (const auto& v : field) varint(static_cast<uint64_t>(v));
      });
    } else if constexpr (is_vector<T>) {
      for (const auto& element : field) put(number, element, /*always=*/true);
    } else {
      body(number, always, [&] { T::fields(field, *this); });
    }
  }

  std::string& out_;
};

// Decodes one field of a message: fields() calls it for every member, and the one with the right
// number takes the bytes.
class Decoder {
 public:
  Decoder(Cursor& in, uint32_t number, Type type, int depth)
      : in_(in), number_(number), type_(type), depth_(depth) {}

  bool taken() const { return taken_; }

  template <class T>
  void operator()(uint32_t number, T& field) {
    if (number == number_ && !taken_) taken_ = take(field);
  }

  template <class... Ts>
  void one_of(uint32_t first, std::variant<Ts...>& field) {
    if (number_ < first || number_ >= first + sizeof...(Ts) - 1 || taken_) return;
    emplace(field, number_ - first + 1, std::index_sequence_for<Ts...>());
  }

 private:
  template <class Variant, size_t... I>
  void emplace(Variant& field, size_t index, std::index_sequence<I...>) {
    ((I != 0 && I == index ? alternative<I>(field) : void()), ...);
  }

  // A kind that is set already merges, another one is replaced, and a wrong wire type changes
  // nothing: as protobuf.
  template <size_t I, class Variant>
  void alternative(Variant& field) {
    if (auto* held = std::get_if<I>(&field)) {
      taken_ = take(*held);
    } else if (std::variant_alternative_t<I, Variant> fresh{}; (taken_ = take(fresh))) {
      field.template emplace<I>(std::move(fresh));
    }
  }

  // False: the wire type is not the field's, so the caller skips it, as protobuf does.
  template <class T>
  bool take(T& field) {
    if constexpr (std::is_same_v<T, std::monostate>) {
      return false;
    } else if constexpr (std::is_same_v<T, Null>) {
      if (type_ != kVarint) return false;
      in_.varint();
    } else if constexpr (is_scalar<T>) {
      if (type_ != kVarint) return false;
      field = scalar<T>(in_.varint());
    } else if constexpr (std::is_same_v<T, double>) {
      if (type_ != kFixed64) return false;
      field = std::bit_cast<double>(in_.le<uint64_t>());
    } else if constexpr (is_text<T>) {
      if (type_ != kLength) return false;
      text_of(field) = as_text(in_.take(in_.varint()));
    } else if constexpr (is_scalar_vector<T>) {
      using E = typename T::value_type;
      if (type_ == kVarint) {
        field.push_back(scalar<E>(in_.varint()));
      } else if (type_ == kLength) {
        Cursor body(in_.take(in_.varint()));
        while (!body.done()) field.push_back(scalar<E>(body.varint()));
        if (body.failed()) in_.fail();
      } else {
        return false;
      }
    } else if constexpr (is_vector<T>) {
      if (type_ != kLength) return false;
      message(field.emplace_back());
    } else {
      if (type_ != kLength) return false;
      message(field);
    }
    return true;
  }

  template <class T>
  static T scalar(uint64_t v) {
    if constexpr (std::is_same_v<T, bool>)
      return v != 0;
    else
      return static_cast<T>(v);
  }

  template <class T>
  void message(T& out);

  Cursor& in_;
  uint32_t number_;
  Type type_;
  int depth_;
  bool taken_ = false;
};

inline void skip(Cursor& in, Type type) {
  switch (type) {
    case kVarint:
      in.varint();
      return;
    case kFixed64:
      in.take(8);
      return;
    case kLength:
      in.take(in.varint());
      return;
    case kFixed32:
      in.take(4);
      return;
  }
  in.fail();  // groups: not of proto3
}

template <class T>
void decode_fields(Cursor& in, T& out, int depth) {
  if (depth > kMaxDepth) in.fail();
  while (!in.done()) {
    const uint64_t tag = in.varint();
    const auto number = static_cast<uint32_t>(tag >> 3);
    if (in.failed() || number == 0 || tag > UINT32_MAX) return in.fail();
    const auto type = static_cast<Type>(tag & 7);
    Decoder field(in, number, type, depth);
    T::fields(out, field);
    if (!field.taken()) skip(in, type);
  }
}

template <class T>
void Decoder::message(T& out) {
  Cursor body(in_.take(in_.varint()));
  decode_fields(body, out, depth_ + 1);
  if (body.failed()) in_.fail();
}

}  // namespace wire

template <class Message>
std::string encode(const Message& message) {
  std::string out;
  wire::Encoder encoder(out);
  Message::fields(message, encoder);
  return out;
}

template <class Message>
Result<Message> decode(std::span<const std::byte> bytes) {
  Message out{};
  if constexpr (std::is_same_v<Message, Manifest>) out.schema_version = 0;
  Cursor in(bytes);
  wire::decode_fields(in, out, 1);
  if (in.failed()) {
    return corrupt(cat("manifest: expected protobuf bytes, found a broken field near byte ",
                       in.offset(), " of ", bytes.size()));
  }
  return out;
}

}  // namespace crossdock::manifest
