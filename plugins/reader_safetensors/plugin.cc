// SPDX-License-Identifier: Apache-2.0

// org.crossdock.reader.safetensors: reads a safetensors file, or a Hugging Face folder of them.
//
// open() reads and checks every header and the index, one file at a time; read() is then one read
// of the file at the right place. Everything is immutable after open, so reads may run
// concurrently.
#include "plugins/common/hf_folder.h"
#include "plugins/common/read_range.h"
#include "plugins/reader_safetensors/checkpoint.h"

namespace crossdock::reader_safetensors {

namespace {

using manifest::Manifest;

class SafetensorsReader : public Reader {
 public:
  static int probe(const Host& host, const Input& input) { return score(host, input); }

  static Result<std::unique_ptr<Reader>> open(const Host& host, const Input& input,
                                              const Options& options) {
    const auto names = input.names(host);
    auto out = std::make_unique<SafetensorsReader>();
    XD_TRY_SET(out->config_, common::read_config(host, input, names));
    XD_TRY_SET(out->checkpoint_,
               open_checkpoint(host, input, out->config_, options.text("variant")));
    out->aux_files_ = common::aux_files(names);
    return std::unique_ptr<Reader>(std::move(out));
  }

  Result<Manifest> manifest(const Host&) override {
    Manifest out;
    out.source.format = "safetensors";
    out.source.config = config_;
    out.aux_files = aux_files_;
    for (const CheckpointFile& file : checkpoint_.files)
      out.source.files.push_back({file.name, file.size, {}});
    for (const auto& [key, value] : checkpoint_.metadata)
      out.source.metadata.push_back({key, {value}});
    out.tensors.reserve(checkpoint_.tensors.size());
    for (const HeaderTensor& t : checkpoint_.tensors) {
      auto& tensor = out.tensors.emplace_back();
      tensor.name = t.name;
      tensor.dtype = t.dtype;
      tensor.shape = t.shape;
      if (t.boxes.empty()) tensor.extents = {{t.file, t.offset, t.n_bytes}};
      for (const common::Box& box : t.boxes)
        tensor.extents.push_back({box.file, box.data, *checked_product(box.sizes) * elem_bytes(t)});
    }
    return out;
  }

  Result<void> read(const Host& host, const xd_range& range, std::span<std::byte> out) override {
    return common::read_one_of(
        checkpoint_.tensors, range, [](const HeaderTensor& t) { return t.name; },
        [&](const HeaderTensor& t) { return read(host, t, range, out); });
  }

 private:
  static uint64_t elem_bytes(const HeaderTensor& t) { return manifest::info(t.dtype).bits / 8; }

  Result<void> read_boxes(const Host& host, const HeaderTensor& t, const xd_range& range,
                          std::span<std::byte> out) const {
    return common::read_boxes(t.shape, t.boxes, elem_bytes(t), range.begin, range.count, out,
                              [&](uint32_t file, uint64_t offset, std::span<std::byte> bytes) {
                                return checkpoint_.files[file].source.read(host, offset, bytes);
                              });
  }

  Result<void> read(const Host& host, const HeaderTensor& t, const xd_range& range,
                    std::span<std::byte> out) const {
    if (range.dtype != 0 && range.dtype != static_cast<uint32_t>(t.dtype)) {
      return invalid(cat("expected to be asked for ", manifest::name(t.dtype), ", found dtype ",
                         range.dtype, ": casts are the host's"));
    }
    if (range.begin > t.n_elems || range.count > t.n_elems - range.begin) {
      return Error{XD_OUT_OF_RANGE, cat("expected a range inside ", t.n_elems, " elements, found ",
                                        range.count, " at ", range.begin)};
    }
    // No overflow: the whole tensor's bits were checked.
    const uint64_t bits = manifest::info(t.dtype).bits;
    if (range.begin * bits % 8 != 0 || range.count * bits % 8 != 0) {
      return invalid(cat("expected a range of ", manifest::name(t.dtype),
                         " elements that begins and ends with a byte, found ", range.count, " at ",
                         range.begin));
    }
    const uint64_t n_bytes = range.count * bits / 8;
    if (out.size() != n_bytes)
      return invalid(cat("expected a buffer of ", n_bytes, " bytes, found ", out.size()));
    if (n_bytes == 0) return {};
    if (!t.boxes.empty()) return read_boxes(host, t, range, out);
    return checkpoint_.files[t.file].source.read(host, t.offset + range.begin * bits / 8, out);
  }

  Checkpoint checkpoint_;
  manifest::Value config_;
  std::vector<manifest::AuxFile> aux_files_;
};

constexpr xd_option_desc kVariant{
    XD_INIT_SIZE(xd_option_desc),
    0,
    "variant",
    "string",
    "",
    "which weights of a folder that has several: fp16 for model.fp16.safetensors"};
constexpr const xd_option_desc* kOptions[] = {&kVariant, nullptr};
constexpr const char* kFormats[] = {"safetensors", nullptr};
constexpr const char* kPatterns[] = {"*.safetensors", "model.safetensors.index.json", nullptr};

}  // namespace

XD_EXPORT_PLUGINS(reader_plugin<SafetensorsReader>(
    {.id = "org.crossdock.reader.safetensors",
     .version = CROSSDOCK_VERSION,
     .summary = "reads safetensors files and Hugging Face folders of them",
     .formats = kFormats,
     .patterns = kPatterns,
     .options = kOptions}))

}  // namespace crossdock::reader_safetensors
