// SPDX-License-Identifier: Apache-2.0

// org.crossdock.reader.gguf: reads GGUF files of version 2 and 3, one or split, and dequantises all
// their types.
//
// Names and shapes are the file's own (blk.0.attn_q.weight): the host's rules per architecture turn
// them into those of Hugging Face's classes. open() reads headers only. Everything is immutable
// after it, so reads may run concurrently.
#include "plugins/common/hf_folder.h"
#include "plugins/common/read_range.h"
#include "plugins/reader_gguf/values.h"

namespace crossdock::reader_gguf {

namespace {

using manifest::DType;
using manifest::Manifest;

class GgufReader : public Reader {
 public:
  static int probe(const Host& host, const Input& input) { return score(host, input); }

  static Result<std::unique_ptr<Reader>> open(const Host& host, const Input& input,
                                              const Options& options) {
    const std::string floats = options.text("dequant-dtype");
    auto out = std::make_unique<GgufReader>();
    out->floats_ = floats == "bf16" ? DType::BF16 : floats == "fp16" ? DType::F16 : DType::F32;
    XD_TRY_SET(out->checkpoint_, open_checkpoint(host, input));
    if (out->checkpoint_.big_endian) {
      for (const GgufTensor& t : out->checkpoint_.tensors) {
        if (!can_swap(*t.info.type))
          return unsupported(
              cat("expected plain types, Q4_0, Q8_0, Q4_K, Q6_K, MXFP4 or NVFP4 in a big-endian "
                  "file, found ",
                  t.info.type->name, " in tensor ", common::in_quotes(t.info.name)));
      }
    }
    return std::unique_ptr<Reader>(std::move(out));
  }

  Result<Manifest> manifest(const Host&) override {
    Manifest out;
    out.source.format = cat("gguf/", checkpoint_.version);
    out.source.metadata =
        std::move(checkpoint_.metadata);  // asked for once; a vocabulary takes tens of megabytes
    for (const CheckpointFile& file : checkpoint_.files)
      out.source.files.push_back({file.name, file.size, {}});
    out.tensors.reserve(checkpoint_.tensors.size());
    for (const auto& [file, info] : checkpoint_.tensors) {
      manifest::Tensor& t = out.tensors.emplace_back();
      t.name = info.name;
      t.dtype = type_of(*info.type);
      t.shape = info.shape;
      t.extents = {{file, info.offset, info.n_bytes}};
      if (!is_stored_plainly(*info.type, t.dtype, checkpoint_.big_endian))
        t.encoding = cat("ggml/", info.type->name, checkpoint_.big_endian ? ", big-endian" : "");
    }
    return out;
  }

  Result<void> read(const Host& host, const xd_range& range, std::span<std::byte> out) override {
    return common::read_one_of(
        checkpoint_.tensors, range, [](const GgufTensor& t) { return t.info.name; },
        [&](const GgufTensor& t) { return read(host, t, range, out); });
  }

  ReadHint read_hint(const Host&, uint64_t tensor) override {
    const GgmlType& type = *checkpoint_.tensors[tensor].info.type;
    return {.scratch = type_of(type) == type.plain ? 0 : kStoredBytes};
  }

 private:
  // What is stored as F32 stays so, whatever was asked for: these are norms and the like, a few
  // values whose every bit counts, and on which rules compute.
  DType type_of(const GgmlType& type) const {
    return type.plain == DType::F32 ? DType::F32 : value_type(type, floats_);
  }

  Result<void> read(const Host& host, const GgufTensor& t, const xd_range& range,
                    std::span<std::byte> out) const {
    const DType dtype = type_of(*t.info.type);
    XD_TRY(common::check_dense(range, dtype, t.info.n_elems, out));
    if (range.count == 0) return {};
    return read_values(host, checkpoint_.files[t.file].source, t.info, checkpoint_.big_endian,
                       dtype, range.begin, range.count, out);
  }

  Checkpoint checkpoint_;
  DType floats_ = DType::F32;
};

constexpr xd_option_desc kDtype{
    XD_INIT_SIZE(xd_option_desc),
    0,
    "dequant-dtype",
    "enum:auto|bf16|fp16|fp32",
    "auto",
    "what quantised and 16-bit values of a GGUF file become; auto: fp32; F32 ones (norms) stay"};
constexpr const xd_option_desc* kOptions[] = {&kDtype, nullptr};
constexpr const char* kFormats[] = {"gguf", nullptr};
constexpr const char* kPatterns[] = {"*.gguf", nullptr};

}  // namespace

XD_EXPORT_PLUGINS(
    reader_plugin<GgufReader>({.id = "org.crossdock.reader.gguf",
                               .version = CROSSDOCK_VERSION,
                               .summary = "reads GGUF files of llama.cpp, and dequantises them",
                               .formats = kFormats,
                               .patterns = kPatterns,
                               .options = kOptions}))

}  // namespace crossdock::reader_gguf
