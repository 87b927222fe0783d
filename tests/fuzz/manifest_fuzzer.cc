// SPDX-License-Identifier: Apache-2.0

// Any bytes as the manifest that a plugin gives. Ours and libprotobuf read the same from it, what
// is read is written and read again the same, and what passes the check has what the check
// promises.
#include "core/model/check.h"
#include "core/model/dump.h"

#include <crossdock/manifest.pb.h>
#include <google/protobuf/stubs/logging.h>

using namespace crossdock;
using manifest::Manifest;
using manifest::Tensor;

namespace {

void must(bool holds) {
  if (!holds) __builtin_trap();
}

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text));
}

// What libprotobuf read and wrote in its plain form holds the same: ours have no message that is
// there and empty. It refuses what ours leave to the check, text that is no UTF-8.
void compare_with_protobuf(const std::string& given, const std::string& ours) {
  crossdock::manifest::v1::Manifest theirs;
  if (!theirs.ParseFromString(given)) return;
  theirs.DiscardUnknownFields();
  const auto read = manifest::decode<Manifest>(bytes_of(theirs.SerializeAsString()));
  must(read && manifest::encode(*read) == ours);
}

// The farthest value of a tensor is inside its storage.
void check_reach(const Tensor& t) {
  if (t.strides.empty() || model::element_count(t) == 0) return;
  unsigned __int128 last = t.storage_offset;
  for (size_t i = 0; i < t.shape.size(); ++i)
    last += static_cast<unsigned __int128>(t.shape[i] - 1) * static_cast<uint64_t>(t.strides[i]);
  must(last < t.storage_elements);
}

void check_promises(const Manifest& m) {
  unsigned __int128 n_elems = 0;
  for (const Tensor& t : m.tensors) {
    n_elems += model::element_count(t);
    (void)model::value_bytes(t);
    check_reach(t);
    unsigned __int128 held = 0;
    for (const manifest::Extent& e : t.extents) {
      must(static_cast<unsigned __int128>(e.offset) + e.length <= m.source.files.at(e.file).size);
      held += e.length;
    }
    if (t.strides.empty() && t.encoding.empty() && t.expression.empty())
      must(model::value_bytes(t) <= held);
  }
  must(n_elems <= model::kMaxElements);
  for (const uint64_t i : model::other_names(m)) must(i < m.tensors.size());
  must(model::to_json(m).has_value());
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  google::protobuf::SetLogHandler(nullptr);  // it would print a line for each text that is no UTF-8
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string given(reinterpret_cast<const char*>(data), size);
  const auto read = manifest::decode<Manifest>(bytes_of(given));
  if (!read) return 0;
  const std::string text = manifest::encode(*read);
  const auto again = manifest::decode<Manifest>(bytes_of(text));
  must(again && manifest::encode(*again) == text);
  compare_with_protobuf(given, text);
  if (model::check(*read)) check_promises(*read);
  return 0;
}
