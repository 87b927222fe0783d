// SPDX-License-Identifier: Apache-2.0

// A writer of numpy's .npy files, one per tensor, as a third party would write it: only the SDK's
// headers, and none of the threads, files, casts or memory accounting, which are the host's.
//
// Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
#include <crossdock/plugin.hpp>

#include <algorithm>

namespace {

using namespace crossdock;
using manifest::DType;

constexpr uint64_t kItemElems = 16 << 20;  // work that one thread does at a time

// numpy's name for a type, or nothing.
const char* descr(DType dtype) {
  switch (dtype) {
    case DType::BOOL:
      return "|b1";
    case DType::U8:
      return "|u1";
    case DType::I8:
      return "|i1";
    case DType::U16:
      return "<u2";
    case DType::I16:
      return "<i2";
    case DType::U32:
      return "<u4";
    case DType::I32:
      return "<i4";
    case DType::U64:
      return "<u8";
    case DType::I64:
      return "<i8";
    case DType::F16:
      return "<f2";
    case DType::F32:
      return "<f4";
    case DType::F64:
      return "<f8";
    default:
      return nullptr;
  }
}

std::string npy_header(DType dtype, const std::vector<uint64_t>& shape) {
  std::string text = cat("{'descr': '", descr(dtype), "', 'fortran_order': False, 'shape': (");
  for (const uint64_t dim : shape) text += cat(dim, shape.size() == 1 ? "," : ", ");
  text += "), }";
  constexpr uint64_t kMagicBytes = 10;
  text.resize(round_up(kMagicBytes + text.size() + 1, 64) - kMagicBytes - 1, ' ');
  text += '\n';
  std::string out("\x93NUMPY\x01\x00", 8);
  put_le<uint16_t>(out, static_cast<uint16_t>(text.size()));
  return out + text;
}

// One output file.
struct File {
  uint64_t tensor;  // its index in the manifest
  DType dtype;      // as written
  uint64_t n_elems;
  std::string header;
};

class NpyWriter : public Writer {
 public:
  static Result<std::unique_ptr<Writer>> open(const Host&, manifest::Manifest model,
                                              const Options& options) {
    return std::unique_ptr<Writer>(new NpyWriter(std::move(model), options.text("npy-folder")));
  }

  Result<void> plan(const Host& host, Plan& out) override {
    uint64_t n_widened = 0;
    files_.clear();
    for (uint64_t i = 0; i < model_.tensors.size(); ++i) {
      const manifest::Tensor& t = model_.tensors[i];
      if (!t.excluded.empty()) continue;  // by the host, which reports it
      const bool widen = t.dtype == DType::BF16;
      const DType dtype = widen ? DType::F32 : t.dtype;
      if (!descr(dtype)) {
        XD_TRY(out.exclude(i, cat("numpy has no type for ", manifest::name(t.dtype))));
        continue;
      }
      n_widened += widen;
      if (t.shape.size() > 32)
        return unsupported(
            cat("tensor \"", t.name, "\": expected at most 32 dimensions, found ", t.shape.size()));
      // The host has checked the sizes of the manifest; only the wider type could overflow.
      const uint64_t n_elems = *checked_product(t.shape);
      files_.push_back({i, dtype, n_elems, npy_header(dtype, t.shape)});
      XD_TRY(plan_file(host, out, cat(folder_, "/", t.target(), ".npy")));
    }
    if (n_widened != 0)
      XD_TRY(out.note(
          cat(n_widened,
              " BF16 tensors are written as F32, which holds the same values: numpy has no BF16")));
    return {};
  }

  Result<std::string> write_item(const Host& host, uint32_t object, uint64_t item,
                                 Object& out) override {
    const File& file = files_[object];
    const uint64_t elem_bytes = manifest::info(file.dtype).bits / 8;
    const uint64_t begin = item * kItemElems, end = std::min(begin + kItemElems, file.n_elems);
    const uint64_t piece = piece_elems(host, file);
    if (begin == end) {  // no elements
      XD_TRY(read_tensor(host, dense_range(file.tensor, 0, 0, file.dtype), {}));
      return std::string();
    }
    XD_TRY_SET(const Buffer buffer, Buffer::make(host, piece * elem_bytes));
    for (uint64_t at = begin; at < end; at += piece) {
      if (host.cancelled()) return Error{XD_CANCELLED, "cancelled"};
      const uint64_t count = std::min(piece, end - at);
      const auto bytes = buffer.span().first(count * elem_bytes);
      XD_TRY(read_tensor(host, dense_range(file.tensor, at, count, file.dtype),
                         bytes));  // the host casts
      XD_TRY(out.write(file.header.size() + at * elem_bytes, bytes));
    }
    return std::string();  // nothing that seal() must know
  }

  Result<void> seal(const Host&, uint32_t object, Object& out,
                    std::span<const std::string_view>) override {
    return out.write(0, as_bytes(files_[object].header));
  }

 private:
  NpyWriter(manifest::Manifest model, std::string folder)
      : model_(std::move(model)), folder_(std::move(folder)) {}

  // Objects are numbered as files_ is.
  Result<void> plan_file(const Host& host, Plan& out, const std::string& path) {
    const File& file = files_.back();
    const uint64_t elem_bytes = manifest::info(file.dtype).bits / 8;
    const auto data = checked_mul(file.n_elems, elem_bytes);
    const auto size = data ? checked_add(*data, file.header.size()) : std::nullopt;
    if (!size) return unsupported(cat(path, ": expected fewer than 2^64 bytes, found more"));
    XD_TRY_SET(const uint32_t object, out.object(path, *size));
    uint64_t begin = 0;
    do {
      const uint64_t count = std::min(kItemElems, file.n_elems - begin);
      const xd_range need = dense_range(file.tensor, begin, count);
      XD_TRY(out.item(object, {&need, 1}, count * elem_bytes,
                      std::min(piece_elems(host, file), count) * elem_bytes));
      begin += count;
    } while (begin < file.n_elems);
    return {};
  }

  static uint64_t piece_elems(const Host& host, const File& file) {
    const uint64_t elem_bytes = manifest::info(file.dtype).bits / 8;
    return std::clamp<uint64_t>(host.piece_bytes() / elem_bytes, 1,
                                std::clamp<uint64_t>(file.n_elems, 1, kItemElems));
  }

  const manifest::Manifest model_;
  const std::string folder_;
  std::vector<File> files_;
};

constexpr const char* kFormats[] = {"npy", nullptr};
constexpr const char* kPatterns[] = {"*.npy", nullptr};
constexpr xd_option_desc kFolder{
    XD_INIT_SIZE(xd_option_desc),          0, "npy-folder", "string", "arrays",
    "the folder inside DST for the arrays"};
constexpr const xd_option_desc* kOptions[] = {&kFolder, nullptr};

}  // namespace

XD_EXPORT_PLUGINS(writer_plugin<NpyWriter>({.id = "org.example.writer.npy",
                                            .version = "1.0.0",
                                            .summary = "Writes one numpy .npy file per tensor",
                                            .formats = kFormats,
                                            .patterns = kPatterns,
                                            .options = kOptions}))
