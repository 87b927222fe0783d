// SPDX-License-Identifier: Apache-2.0

// A reader of numpy's .npz, the files of numpy.savez and numpy.savez_compressed: a zip archive with
// a .npy file for each array.
#include "member.h"
#include "npy.h"

#include <algorithm>
#include <memory>

namespace {

using namespace npz;

constexpr std::string_view kNpzSuffix = ".npz", kNpySuffix = ".npy";

struct Array {
  std::string name;
  NpyHeader header;
  uint64_t begin;  // of its values in the unpacked member
  uint64_t n_elems;
  std::unique_ptr<Member> member;
};

uint64_t elem_bytes(const Array& array) { return manifest::info(array.header.dtype).bits / 8; }

Result<Array> open_array(const Host& host, const Source& source, Entry entry) {
  Array out;
  out.name = entry.name.substr(0, entry.name.size() - kNpySuffix.size());
  out.member = std::make_unique<Member>(source, std::move(entry));
  const uint64_t size = out.member->entry().size;

  std::vector<std::byte> header(std::min(size, kNpyPrefixBytes));
  XD_TRY(out.member->read(host, 0, header));
  XD_TRY_SET(out.begin, npy_header_bytes(header));
  if (out.begin > size)
    return corrupt(cat("expected a .npy header of ", out.begin, " bytes, found ", size));
  const size_t known = header.size();
  header.resize(std::max(known, out.begin));
  XD_TRY(out.member->read(host, known, std::span(header).subspan(known)));
  header.resize(out.begin);
  XD_TRY_SET(out.header, parse_npy_header(header));
  out.member->rest();  // there may be thousands

  const auto n_elems = checked_product(out.header.shape);
  const auto n_bytes = n_elems ? checked_mul(*n_elems, elem_bytes(out)) : std::nullopt;
  if (!n_bytes) return corrupt("expected an array below 2^64 bytes, found a larger shape");
  if (*n_bytes != size - out.begin)
    return corrupt(cat("expected ", *n_bytes, " bytes of values by its .npy header, found ",
                       size - out.begin, " in the archive"));
  out.n_elems = *n_elems;
  return out;
}

manifest::Tensor describe(const Array& array) {
  manifest::Tensor t;
  const Entry& entry = array.member->entry();
  t.name = array.name;
  t.dtype = array.header.dtype;
  t.shape = array.header.shape;
  if (entry.is_deflated) {
    t.encoding = "deflate";
    t.extents.push_back({0, entry.begin, entry.packed});
  } else {
    t.encoding = array.header.is_big_endian ? "big-endian" : "";
    t.extents.push_back({0, entry.begin + array.begin, entry.packed - array.begin});
  }
  // The first dimension is the innermost: the host picks the values out in the usual order.
  if (array.header.is_fortran && t.shape.size() > 1 && array.n_elems > 0) {
    uint64_t stride = 1;
    for (const uint64_t dim : t.shape) {
      t.strides.push_back(static_cast<int64_t>(stride));
      stride *= dim;
    }
    t.storage_elements = array.n_elems;
  }
  return t;
}

void swap_bytes(std::span<std::byte> values, uint64_t width) {
  for (uint64_t at = 0; at < values.size(); at += width)
    std::ranges::reverse(values.subspan(at, width));
}

class NpzReader : public Reader {
 public:
  // Of a folder the names tell, of a named file its first bytes: numpy writes an array first.
  static int probe(const Host& host, const Input& input) {
    const std::string named = input.named(host);
    if (named.empty()) return files_of(host, input).empty() ? 0 : 50;
    const auto source = input.open(host, named);
    std::vector<std::byte> head(source ? std::min<uint64_t>(source->size(host), 30 + 65535) : 0);
    if (!source || !source->read(host, 0, head)) return 0;
    Cursor in(head);
    const bool is_member = in.le<uint32_t>() == 0x04034b50;
    in.take(22);
    const auto n_name = in.le<uint16_t>();
    in.take(2);
    if (is_member && as_text(in.take(n_name)).ends_with(kNpySuffix)) return 95;
    return named.ends_with(kNpzSuffix) ? 10 : 0;  // what is wrong with it is ours to say
  }

  static Result<std::unique_ptr<Reader>> open(const Host& host, const Input& input,
                                              const Options&) {
    std::string name = input.named(host);
    if (name.empty()) {
      const auto files = files_of(host, input);
      if (files.size() != 1)
        return invalid(cat("expected one .npz file, found ", files.size(), ": name the file"));
      name = files[0];
    }
    std::unique_ptr<NpzReader> out(new NpzReader(name));
    if (auto read = out->read_file(host, input); !read) return std::move(read).error().in(name);
    return std::unique_ptr<Reader>(std::move(out));
  }

  Result<manifest::Manifest> manifest(const Host&) override {
    manifest::Manifest m;
    m.source.format = "npz";
    m.source.files.push_back({name_, size_, ""});
    for (const Array& array : arrays_) m.tensors.push_back(describe(array));
    return m;
  }

  Result<void> read(const Host& host, const xd_range& range, std::span<std::byte> out) override {
    if (range.dtype != 0 || range.tensor >= arrays_.size())
      return Error{XD_OUT_OF_RANGE, "expected values of an array as they are, found another wish"};
    const Array& array = arrays_[range.tensor];
    if (range.begin > array.n_elems || range.count > array.n_elems - range.begin ||
        out.size() != range.count * elem_bytes(array))
      return Error{XD_OUT_OF_RANGE, "expected a range inside the array and room for it"}.in(
          array.name);
    const uint64_t offset = array.begin + range.begin * elem_bytes(array);
    if (auto done = array.member->read(host, offset, out); !done)
      return std::move(done).error().in(cat(name_, ": ", array.member->entry().name));
    const bool is_complex = manifest::info(array.header.dtype).kind == manifest::Kind::kComplex;
    if (array.header.is_big_endian) swap_bytes(out, elem_bytes(array) / (is_complex ? 2 : 1));
    return {};
  }

  ReadHint read_hint(const Host&, uint64_t tensor) override {
    const Member& member = *arrays_[tensor].member;
    return {.scratch = member.scratch(), .is_sequential = member.entry().is_deflated};
  }

 private:
  explicit NpzReader(std::string name) : name_(std::move(name)) {}

  static std::vector<std::string> files_of(const Host& host, const Input& input) {
    auto names = input.names(host);
    std::erase_if(names, [](const std::string& name) {
      return !name.ends_with(kNpzSuffix) || name.find('/') != std::string::npos;
    });
    return names;
  }

  Result<void> read_file(const Host& host, const Input& input) {
    XD_TRY_SET(const Source source, input.open(host, name_));
    size_ = source.size(host);
    XD_TRY_SET(auto entries, read_directory(host, source));
    for (Entry& entry : entries) {
      if (host.cancelled()) return Error{XD_CANCELLED, "cancelled"};
      const std::string member = entry.name;
      if (!member.ends_with(kNpySuffix)) {
        host.log(XD_LOG_WARN, cat(member, " in ", name_, " is no array, and is not read"));
        continue;
      }
      auto array = open_array(host, source, std::move(entry));
      if (!array) return std::move(array).error().in(member);
      arrays_.push_back(*std::move(array));
    }
    return {};
  }

  const std::string name_;
  uint64_t size_ = 0;
  std::vector<Array> arrays_;  // by the manifest's indexes
};

constexpr const char* kFormats[] = {"npz", nullptr};
constexpr const char* kPatterns[] = {"*.npz", nullptr};

}  // namespace

XD_EXPORT_PLUGINS(
    crossdock::reader_plugin<NpzReader>({.id = "org.example.reader.npz",
                                         .version = "1.0.0",
                                         .summary = "Reads numpy's .npz, compressed or not",
                                         .formats = kFormats,
                                         .patterns = kPatterns}))
