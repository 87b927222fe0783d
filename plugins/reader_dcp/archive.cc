// SPDX-License-Identifier: Apache-2.0
#include "plugins/reader_dcp/archive.h"

#include <algorithm>
#include <bit>

#include "plugins/torch/read/torch_file.h"

namespace crossdock::reader_dcp {
namespace {

using torch_read::Kind;
using torch_read::Pickle;
using torch_read::TorchFile;
using torch_read::Value;

constexpr int kMaxDepth = 8;            // of lists in an object
constexpr size_t kMaxValues = 100'000;  // of an object

std::string text_of(const std::vector<uint64_t>& shape) {
  std::string out = "[";
  for (const uint64_t n : shape) out += cat(out.size() == 1 ? "" : ", ", n);
  return out + "]";
}

Result<std::unique_ptr<TorchFile>> open(const Host& host, const CheckpointFile& file,
                                        const Place& place, bool verify_crc) {
  if (place.offset > file.size || place.n_bytes > file.size - place.offset)
    return corrupt(cat("expected ", place.n_bytes, " bytes at ", place.offset,
                       ", found the end of ", file.name, " at ", file.size,
                       ": it is cut off, copy it again"));
  return TorchFile::open_archive(host, file.source.window(place.offset, place.n_bytes), verify_crc);
}

bool is_row_major(const torch_read::Tensor& t) {
  uint64_t stride = 1;
  for (size_t d = t.shape.size(); d-- > 0;) {
    if (t.shape[d] == 1) continue;
    if (t.strides[d] != stride) return false;
    stride *= t.shape[d];
  }
  return true;
}

// Plain data of the kinds that settings are of.
manifest::Value plain(const Pickle& pickle, const Value& v, int depth, size_t& n_values) {
  manifest::Value out;
  if (depth > kMaxDepth || ++n_values > kMaxValues) return out;
  switch (v.kind) {
    case Kind::kNone:
      out.kind = manifest::Null{};
      break;
    case Kind::kBool:
      out.kind = v.data != 0;
      break;
    case Kind::kInt:
      out.kind = static_cast<int64_t>(v.data);
      break;
    case Kind::kFloat:
      out.kind = std::bit_cast<double>(v.data);
      break;
    case Kind::kText:
      out.kind = std::string(pickle.text(v));
      break;
    case Kind::kTuple:
    case Kind::kList: {
      manifest::ValueList list;
      const auto items = v.kind == Kind::kTuple ? pickle.tuple(v) : pickle.items(v);
      for (const Value& item : items)
        list.values.push_back(plain(pickle, item, depth + 1, n_values));
      out.kind = std::move(list);
      break;
    }
    default:
      break;
  }
  return out;
}

}  // namespace

Result<Values> find_values(const Host& host, const CheckpointFile& file, const Place& place,
                           manifest::DType dtype, const std::vector<uint64_t>& sizes,
                           bool verify_crc) {
  XD_TRY_SET(const auto archive, open(host, file, place, verify_crc));
  const Value& root = archive->pickle().root();
  if (root.kind != Kind::kTensor)
    return unsupported(cat(
        "expected a plain tensor, found ",
        root.kind == Kind::kOpaque
            ? cat("an object of the class ", archive->pickle().class_of(root), ": nothing was run")
            : std::string(torch_read::name_of(root.kind))));
  const torch_read::Tensor& t = archive->pickle().tensor(root);
  if (t.dtype != dtype || t.shape != sizes)
    return corrupt(cat("expected ", manifest::name(dtype), " values of ", text_of(sizes),
                       ", as .metadata has them, found ", manifest::name(t.dtype), " of ",
                       text_of(t.shape), ": the files are of different saves"));
  XD_TRY_SET(const uint32_t index, archive->find_storage(archive->pickle().storage(t.storage)));
  const torch_read::Record& record = archive->record(index);
  const uint64_t elem_bytes = manifest::info(dtype).bits / 8;
  if (record.deflated || (archive->big_endian() && elem_bytes > 1))
    return unsupported(cat("expected plain little-endian values, as torch saves them, found ",
                           record.deflated ? "deflated" : "big-endian",
                           " ones: load and save the checkpoint again"));
  Values out{place.offset + record.offset, {}, 0, 0};
  if (is_row_major(t)) {
    out.data += t.offset * elem_bytes;
  } else {
    out.strides = t.strides;
    out.storage_offset = t.offset;
    out.storage_elements = record.n_bytes / elem_bytes;
  }
  return out;
}

Result<manifest::Value> read_object(const Host& host, const CheckpointFile& file,
                                    const Place& place) {
  XD_TRY_SET(const auto archive, open(host, file, place, false));
  size_t n_values = 0;
  return plain(archive->pickle(), archive->pickle().root(), 0, n_values);
}

}  // namespace crossdock::reader_dcp
