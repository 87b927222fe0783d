// SPDX-License-Identifier: Apache-2.0

// manifest_wire.hpp against libprotobuf. The messages are filled by walking protobuf's own
// descriptors, so a field that is added to manifest.proto and forgotten in manifest_wire.hpp makes
// these tests fail.
#include <crossdock/manifest.pb.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>
#include <google/protobuf/dynamic_message.h>
#include <google/protobuf/stubs/logging.h>
#include <google/protobuf/util/message_differencer.h>
#include <crossdock/manifest_wire.hpp>

#include <algorithm>
#include <limits>
#include <map>
#include <random>
#include <set>

#include "tests/catch.h"

namespace manifest = crossdock::manifest;
namespace pb = crossdock::manifest::v1;
using crossdock::as_bytes;
using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;
using google::protobuf::util::MessageDifferencer;

namespace {

constexpr int kMaxNesting = 12;  // of filled messages

// The values that every field of a type must have been seen with. null_value is only ever true: see
// manifest.proto.
const std::vector<int64_t> kInt64{0, 1, -1, 127, 128, INT64_MAX, INT64_MIN};
const std::vector<uint64_t> kUint64{
    0, 1, 127, 128, UINT32_MAX, uint64_t{1} << 32, uint64_t{1} << 63, UINT64_MAX};
const std::vector<uint32_t> kUint32{0, 1, 127, 128, UINT32_MAX};
const std::vector<double> kDouble{0.0,
                                  -0.0,
                                  1e-5,
                                  -1.5,
                                  std::numeric_limits<double>::denorm_min(),
                                  std::numeric_limits<double>::max(),
                                  std::numeric_limits<double>::infinity()};
const std::vector<std::string> kText{"",
                                     "a",
                                     "model.layers.0.weight",
                                     "\xc3\xa9\xe2\x82\xac",
                                     std::string(300, 'x'),
                                     std::string("nul\0in", 6)};
const std::vector<std::string> kBytes{"", std::string("\0\xff\x80", 3), std::string(20000, '\x7f')};
const std::vector<int> kLengths{0, 1, 5};  // of repeated fields

// Fills messages at random, and remembers which value of which field it has used.
class Filler {
 public:
  explicit Filler(uint32_t seed) : random_(seed) {}

  void fill(Message& message, int nesting = 0) {
    const Descriptor& type = *message.GetDescriptor();
    for (int i = 0; i < type.oneof_decl_count(); ++i)
      fill_oneof(message, *type.oneof_decl(i), nesting);
    for (int i = 0; i < type.field_count(); ++i) {
      const FieldDescriptor& field = *type.field(i);
      if (field.containing_oneof()) continue;
      if (!field.is_repeated()) {
        set(message, field, nesting);
        continue;
      }
      const int n = nested_too_deep(field, nesting) ? 0 : pick(field, "length", kLengths);
      for (int k = 0; k < n; ++k) set(message, field, nesting);
    }
  }

  const std::set<std::string>& used() const { return used_; }

  // What used() must hold in the end: every field of every message that `type` leads to, with every
  // value.
  static void expect(const Descriptor& type, std::set<std::string>& out,
                     std::set<const Descriptor*>& seen) {
    if (!seen.insert(&type).second) return;
    for (int i = 0; i < type.field_count(); ++i) {
      const FieldDescriptor& field = *type.field(i);
      if (field.is_repeated()) expect_all(field, "length", kLengths.size(), out);
      if (field.message_type()) {
        out.insert(key(field, "value", 0));
        expect(*field.message_type(), out, seen);
      } else {
        expect_all(field, "value", values_of(field), out);
      }
    }
  }

 private:
  static std::string key(const FieldDescriptor& field, const char* what, size_t i) {
    return field.full_name() + " " + what + " " + std::to_string(i);
  }
  static void expect_all(const FieldDescriptor& field, const char* what, size_t n,
                         std::set<std::string>& out) {
    for (size_t i = 0; i < n; ++i) out.insert(key(field, what, i));
  }
  static size_t values_of(const FieldDescriptor& field) {
    switch (field.type()) {
      case FieldDescriptor::TYPE_INT64:
        return kInt64.size();
      case FieldDescriptor::TYPE_UINT64:
        return kUint64.size();
      case FieldDescriptor::TYPE_UINT32:
        return kUint32.size();
      case FieldDescriptor::TYPE_DOUBLE:
        return kDouble.size();
      case FieldDescriptor::TYPE_BOOL:
        return field.name() == "null_value" ? 1 : 2;
      case FieldDescriptor::TYPE_STRING:
        return kText.size();
      case FieldDescriptor::TYPE_BYTES:
        return kBytes.size();
      case FieldDescriptor::TYPE_ENUM:
        return static_cast<size_t>(field.enum_type()->value_count());
      default:
        FAIL(field.full_name() << " has a type that manifest_wire.hpp does not know");
        return 0;
    }
  }

  size_t below(size_t n) { return std::uniform_int_distribution<size_t>(0, n - 1)(random_); }
  size_t index(const FieldDescriptor& field, const char* what, size_t n) {
    const size_t i = below(n);
    used_.insert(key(field, what, i));
    return i;
  }
  template <class T>
  T pick(const FieldDescriptor& field, const char* what, const std::vector<T>& values) {
    return values[index(field, what, values.size())];
  }

  // Value holds lists of Value: somewhere that must end.
  static bool nested_too_deep(const FieldDescriptor& field, int nesting) {
    return field.message_type() && nesting >= kMaxNesting;
  }

  void fill_oneof(Message& message, const google::protobuf::OneofDescriptor& oneof, int nesting) {
    // One number more than there are kinds: none is set.
    const size_t i = below(static_cast<size_t>(oneof.field_count()) + 1);
    if (i == static_cast<size_t>(oneof.field_count())) return;
    const FieldDescriptor& field = *oneof.field(static_cast<int>(i));
    if (!nested_too_deep(field, nesting)) set(message, field, nesting);
  }

  void set(Message& message, const FieldDescriptor& field, int nesting) {
    const Reflection& access = *message.GetReflection();
    const auto put = [&](auto add, auto assign, const auto& value) {
      field.is_repeated() ? (access.*add)(&message, &field, value)
                          : (access.*assign)(&message, &field, value);
    };
    switch (field.type()) {
      case FieldDescriptor::TYPE_INT64:
        return put(&Reflection::AddInt64, &Reflection::SetInt64, pick(field, "value", kInt64));
      case FieldDescriptor::TYPE_UINT64:
        return put(&Reflection::AddUInt64, &Reflection::SetUInt64, pick(field, "value", kUint64));
      case FieldDescriptor::TYPE_UINT32:
        return put(&Reflection::AddUInt32, &Reflection::SetUInt32, pick(field, "value", kUint32));
      case FieldDescriptor::TYPE_DOUBLE:
        return put(&Reflection::AddDouble, &Reflection::SetDouble, pick(field, "value", kDouble));
      case FieldDescriptor::TYPE_BOOL:
        return put(&Reflection::AddBool, &Reflection::SetBool,
                   index(field, "value", values_of(field)) == 0);
      case FieldDescriptor::TYPE_STRING:
        return put(&Reflection::AddString, &Reflection::SetString, pick(field, "value", kText));
      case FieldDescriptor::TYPE_BYTES:
        return put(&Reflection::AddString, &Reflection::SetString, pick(field, "value", kBytes));
      case FieldDescriptor::TYPE_ENUM: {
        const auto& type = *field.enum_type();
        const auto i = static_cast<int>(index(field, "value", values_of(field)));
        return put(&Reflection::AddEnumValue, &Reflection::SetEnumValue, type.value(i)->number());
      }
      case FieldDescriptor::TYPE_MESSAGE: {
        used_.insert(key(field, "value", 0));
        Message& part = field.is_repeated() ? *access.AddMessage(&message, &field)
                                            : *access.MutableMessage(&message, &field);
        return fill(part, nesting + 1);
      }
      default:
        values_of(field);  // fails with the reason
    }
  }

  std::mt19937 random_;
  std::set<std::string> used_;
};

// An unset message and an empty one are the same to us, so Equivalent and not Equals.
bool same(const pb::Manifest& a, const pb::Manifest& b) {
  return MessageDifferencer::Equivalent(a, b);
}

crossdock::Result<manifest::Manifest> decode(std::string_view bytes) {
  return manifest::decode<manifest::Manifest>(as_bytes(bytes));
}

// libprotobuf's message through our decoder and our encoder.
void check_round_trip(const pb::Manifest& theirs, const std::string& bytes) {
  const auto ours = decode(bytes);
  REQUIRE(ours.has_value());
  const std::string again = manifest::encode(*ours);
  pb::Manifest back;
  REQUIRE(back.ParseFromString(again));
  REQUIRE(same(theirs, back));
  // Canonical: nothing is written that protobuf would not write, fields in order, packed.
  REQUIRE(back.SerializeAsString() == again);
  const auto twice = decode(again);
  REQUIRE(twice.has_value());
  REQUIRE(*twice == *ours);
}

// The same schema with [packed = false] everywhere, to make bytes of the other form.
class UnpackedSchema {
 public:
  UnpackedSchema() {
    google::protobuf::FileDescriptorProto file;
    pb::Manifest::descriptor()->file()->CopyTo(&file);
    for (auto& message : *file.mutable_message_type()) {
      for (auto& field : *message.mutable_field()) {
        const bool repeated =
            field.label() == google::protobuf::FieldDescriptorProto::LABEL_REPEATED;
        if (repeated && field.type() == google::protobuf::FieldDescriptorProto::TYPE_UINT64)
          unpack(field);
        if (repeated && field.type() == google::protobuf::FieldDescriptorProto::TYPE_INT64)
          unpack(field);
      }
    }
    type_ = pool_.BuildFile(file)->FindMessageTypeByName("Manifest");
  }
  int changed() const { return changed_; }
  std::string bytes(const pb::Manifest& m) {
    const std::unique_ptr<Message> copy(factory_.GetPrototype(type_)->New());
    REQUIRE(copy->ParseFromString(m.SerializeAsString()));
    return copy->SerializeAsString();
  }

 private:
  void unpack(google::protobuf::FieldDescriptorProto& field) {
    field.mutable_options()->set_packed(false);
    ++changed_;
  }
  google::protobuf::DescriptorPool pool_;
  google::protobuf::DynamicMessageFactory factory_{&pool_};
  const Descriptor* type_ = nullptr;
  int changed_ = 0;
};

// One field in wire form.
std::string length_field(uint32_t number, const std::string& body) {
  std::string out;
  const auto varint = [&out](uint64_t v) {
    for (; v >= 0x80; v >>= 7) out.push_back(static_cast<char>(v | 0x80));
    out.push_back(static_cast<char>(v));
  };
  varint(number << 3 | 2);
  varint(body.size());
  return out + body;
}

// A config of lists in lists, `n` messages deep under the manifest (an even number at least 2:
// source and config).
std::string nested(int n) {
  std::string value;  // an unset Value
  for (int depth = 2; depth < n; depth += 2) value = length_field(8, length_field(1, value));
  return length_field(2, length_field(4, value));
}

// What libprotobuf parses as null_value = false we keep as null: make it so.
void nulls_are_true(Message& message) {
  const Reflection& access = *message.GetReflection();
  std::vector<const FieldDescriptor*> fields;
  access.ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    if (field->name() == "null_value") access.SetBool(&message, field, true);
    if (!field->message_type()) continue;
    if (!field->is_repeated()) {
      nulls_are_true(*access.MutableMessage(&message, field));
      continue;
    }
    for (int i = 0; i < access.FieldSize(message, field); ++i) {
      nulls_are_true(*access.MutableRepeatedMessage(&message, field, i));
    }
  }
}

// Whatever the bytes are: an error or a manifest, and the one that libprotobuf finds when it takes
// them too.
void check_any_bytes(const std::string& bytes) {
  const auto ours = decode(bytes);
  if (!ours) {
    REQUIRE(ours.error().code == XD_CORRUPT);
    REQUIRE_FALSE(ours.error().message.empty());
    return;
  }
  const std::string again = manifest::encode(*ours);
  REQUIRE(decode(again).has_value());
  pb::Manifest theirs, back;
  if (!theirs.ParseFromString(bytes)) return;  // it wants UTF-8, which the host checks later
  theirs.DiscardUnknownFields();
  nulls_are_true(theirs);
  REQUIRE(back.ParseFromString(again));
  // A NaN is not equal to itself, so compare what the two serialise to; unset and empty messages
  // differ in that.
  if (theirs.SerializeAsString() != back.SerializeAsString()) REQUIRE(same(theirs, back));
}

}  // namespace

TEST_CASE("every field, kind and enum value goes through both implementations") {
  Filler filler(1);
  UnpackedSchema unpacked;
  CHECK(unpacked.changed() ==
        5);  // shape, strides, sub_sizes and the tensors of alias and parameter groups
  std::set<std::string> expected;
  std::set<const Descriptor*> seen;
  Filler::expect(*pb::Manifest::descriptor(), expected, seen);
  CHECK(seen.size() ==
        static_cast<size_t>(pb::Manifest::descriptor()->file()->message_type_count()));

  for (int round = 0; round < 300; ++round) {
    INFO("round " << round);
    pb::Manifest theirs;
    filler.fill(theirs);
    check_round_trip(theirs, theirs.SerializeAsString());
    check_round_trip(theirs, unpacked.bytes(theirs));
  }
  std::vector<std::string> missed;
  std::set_difference(expected.begin(), expected.end(), filler.used().begin(), filler.used().end(),
                      std::back_inserter(missed));
  CHECK(missed == std::vector<std::string>());
  CHECK(filler.used().size() == expected.size());
}

TEST_CASE("an enum value from a newer schema is kept") {
  pb::Manifest theirs;
  auto& tensor = *theirs.add_tensors();
  const FieldDescriptor* dtype = pb::Tensor::descriptor()->FindFieldByName("dtype");
  for (const int number : {1000, -1, std::numeric_limits<int>::min()}) {
    tensor.GetReflection()->SetEnumValue(&tensor, dtype, number);
    const auto ours = decode(theirs.SerializeAsString());
    REQUIRE(ours.has_value());
    pb::Manifest back;
    REQUIRE(back.ParseFromString(manifest::encode(*ours)));
    CHECK(same(theirs, back));
  }
}

TEST_CASE("the enums are those of manifest.proto") {
  const auto check = [](const google::protobuf::EnumDescriptor& theirs,
                        std::map<std::string, uint32_t> ours) {
    INFO(theirs.full_name());
    CHECK(ours.size() == static_cast<size_t>(theirs.value_count()));
    for (int i = 0; i < theirs.value_count(); ++i) {
      INFO(theirs.value(i)->name());
      REQUIRE(ours.count(theirs.value(i)->name()) == 1);
      CHECK(ours[theirs.value(i)->name()] == static_cast<uint32_t>(theirs.value(i)->number()));
    }
  };
  const auto number = [](auto value) { return static_cast<uint32_t>(value); };

  std::map<std::string, uint32_t> dtypes{
      {"DTYPE_UNSPECIFIED", number(manifest::DType::UNSPECIFIED)}};
  for (uint32_t i = 1; i < manifest::kDTypes.size(); ++i)
    dtypes[std::string(manifest::kDTypes[i].name)] = i;
  check(*pb::DType_descriptor(), dtypes);
  CHECK(number(manifest::DType::F6_E3M2) == pb::F6_E3M2);
  CHECK(number(manifest::DType::BF16) == pb::BF16);

  using manifest::AuxKind, manifest::Pattern, manifest::Role, manifest::Training;
  check(*pb::Role_descriptor(), {{"ROLE_UNSPECIFIED", number(Role::kUnspecified)},
                                 {"PARAMETER", number(Role::kParameter)},
                                 {"BUFFER", number(Role::kBuffer)},
                                 {"OPTIMIZER_STATE", number(Role::kOptimizerState)}});
  check(*pb::Training_descriptor(), {{"TRAINING_UNSPECIFIED", number(Training::kUnspecified)},
                                     {"TRAINABLE", number(Training::kTrainable)},
                                     {"FROZEN", number(Training::kFrozen)}});
  check(*pb::Pattern_descriptor(), {{"UNIQUE", number(Pattern::kUnique)},
                                    {"REPLICATED", number(Pattern::kReplicated)},
                                    {"SHARDED", number(Pattern::kSharded)},
                                    {"VOCAB", number(Pattern::kVocab)},
                                    {"SUB_PARAMETERS", number(Pattern::kSubParameters)},
                                    {"EXPERT", number(Pattern::kExpert)}});
  check(*pb::AuxKind_descriptor(), {{"AUX_UNSPECIFIED", number(AuxKind::kUnspecified)},
                                    {"CONFIG", number(AuxKind::kConfig)},
                                    {"GENERATION_CONFIG", number(AuxKind::kGenerationConfig)},
                                    {"TOKENIZER", number(AuxKind::kTokenizer)},
                                    {"PROCESSOR", number(AuxKind::kProcessor)},
                                    {"TRAINER", number(AuxKind::kTrainer)}});
}

TEST_CASE("a new manifest follows the current schema, a decoded one says its own") {
  CHECK(manifest::Manifest{}.schema_version == manifest::kSchemaVersion);
  CHECK(decode("")->schema_version == 0);
}

TEST_CASE("merging is protobuf's") {
  // Singular messages merge, the last scalar wins, repeated fields append, unknown fields are
  // skipped.
  pb::Manifest a, b;
  a.mutable_source()->set_format("one");
  a.mutable_source()->mutable_config()->mutable_list_value()->add_values()->set_int_value(1);
  a.add_tensors()->set_name("x");
  b.set_schema_version(7);
  b.mutable_source()->set_format("two");
  b.mutable_source()->mutable_config()->mutable_list_value()->add_values()->set_int_value(2);
  b.add_tensors()->set_name("y");
  const std::string unknown = length_field(1000, "from a newer schema");
  const auto ours = decode(a.SerializeAsString() + unknown + b.SerializeAsString());
  REQUIRE(ours.has_value());
  CHECK(ours->schema_version == 7);
  CHECK(ours->source.format == "two");
  CHECK(ours->source.config.get<manifest::ValueList>()->values.size() == 2);
  CHECK(ours->tensors.size() == 2);

  // The last kind of a oneof wins; a field of the wrong wire type is unknown, and takes nothing
  // away.
  const std::string wrong = length_field(3, "int_value is no text");
  pb::Value text;
  text.set_string_value("kept");
  const auto value =
      manifest::decode<manifest::Value>(as_bytes("\x10\x01" + text.SerializeAsString() + wrong));
  REQUIRE(value.has_value());
  REQUIRE(value->get<std::string>() != nullptr);
  CHECK(*value->get<std::string>() == "kept");
}

TEST_CASE("what is no message is refused") {
  CHECK_FALSE(decode(std::string("\x00\x01", 2)));                      // field number 0
  CHECK_FALSE(decode("\x0b"));                                          // a group
  CHECK_FALSE(decode("\x0e\x01"));                                      // wire type 6
  CHECK_FALSE(decode("\x12\x05zz"));                                    // longer than what is left
  CHECK_FALSE(decode("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"));  // 65 bits
  const auto e = decode("\x12\x05zz").error();
  CHECK(e.message.find("expected protobuf bytes") != std::string::npos);
}

TEST_CASE("nesting ends at a limit, and libprotobuf reads all that we write") {
  static_assert(manifest::kMaxDepth % 2 == 0);
  const auto deepest = decode(nested(manifest::kMaxDepth - 2));
  REQUIRE(deepest.has_value());
  pb::Manifest theirs;
  CHECK(theirs.ParseFromString(manifest::encode(*deepest)));
  CHECK_FALSE(decode(nested(manifest::kMaxDepth)));
  CHECK_FALSE(decode(nested(20000)));
}

TEST_CASE("cut off, changed or random bytes give an error or a manifest") {
  const google::protobuf::LogSilencer quiet;  // it logs every string that is not UTF-8
  Filler filler(2);
  std::mt19937 random(3);
  for (int round = 0; round < 40; ++round) {
    pb::Manifest m;
    filler.fill(m);
    std::string bytes = m.SerializeAsString();
    // The long fields make most of the bytes; the places where things go wrong are in the first few
    // kilobytes.
    const size_t limit = std::min<size_t>(bytes.size(), 2000);
    for (size_t n = 0; n < limit; n += 1 + round) check_any_bytes(bytes.substr(0, n));
    for (int change = 0; change < 50; ++change) {
      std::string changed = bytes;
      for (int k = 0; k < 1 + change % 4 && !changed.empty(); ++k)
        changed[random() % changed.size()] = static_cast<char>(random());
      check_any_bytes(changed);
    }
  }
  for (int round = 0; round < 20000; ++round) {
    std::string bytes(random() % 64, '\0');
    for (char& c : bytes) c = static_cast<char>(random());
    check_any_bytes(bytes);
  }
}
