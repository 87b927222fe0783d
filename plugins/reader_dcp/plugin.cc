// SPDX-License-Identifier: Apache-2.0

// org.crossdock.reader.dcp: reads folders of torch.distributed.checkpoint.
//
// open() reads .metadata and the directory of each archive that the model needs. read() gathers a
// range of a tensor from its chunks. What open() made is immutable, so reads may run concurrently.
#include "plugins/common/hf_folder.h"
#include "plugins/common/read_range.h"
#include "plugins/reader_dcp/checkpoint.h"
#include "plugins/reader_dcp/folder.h"
#include "plugins/torch/read/torch_file.h"

namespace crossdock::reader_dcp {
namespace {

using manifest::Manifest;

class DcpReader : public Reader {
 public:
  static int probe(const Host& host, const Input& input) { return score(host, input); }

  static Result<std::unique_ptr<Reader>> open(const Host& host, const Input& input,
                                              const Options& options) {
    const auto names = input.names(host);
    auto out = std::make_unique<DcpReader>();
    XD_TRY_SET(out->config_, common::read_config(host, input, names));
    XD_TRY_SET(out->checkpoint_,
               open_checkpoint(host, input,
                               {options.text("state-dict-path"), options.flag("verify-crc")}));
    out->aux_files_ = common::aux_files(names);
    return std::unique_ptr<Reader>(std::move(out));
  }

  Result<Manifest> manifest(const Host&) override {
    Manifest out;
    out.source.format = "dcp";
    out.source.config = config_;
    out.aux_files = aux_files_;
    out.alias_groups = checkpoint_.aliases;
    out.training = checkpoint_.training;
    if (checkpoint_.n_ranks > 0)
      out.source.metadata.push_back({"dp_world_size", {checkpoint_.n_ranks}});
    for (const CheckpointFile& file : checkpoint_.files)
      out.source.files.push_back({file.name, file.size, {}});
    out.tensors.reserve(checkpoint_.tensors.size());
    for (const DcpTensor& t : checkpoint_.tensors) describe(t, out.tensors.emplace_back());
    return out;
  }

  Result<void> read(const Host& host, const xd_range& range, std::span<std::byte> out) override {
    return common::read_one_of(
        checkpoint_.tensors, range, [](const DcpTensor& t) { return t.name; },
        [&](const DcpTensor& t) { return read(host, t, range, out); });
  }

 private:
  void describe(const DcpTensor& t, manifest::Tensor& out) const {
    out.name = t.name;
    out.dtype = t.dtype;
    out.shape = t.shape;
    if (t.is_moment) out.role = manifest::Role::kOptimizerState;
    if (!t.strides.empty()) {
      out.strides.assign(t.strides.begin(), t.strides.end());
      out.storage_offset = t.storage_offset;
      out.storage_elements = t.storage_elements;
      out.extents = {{t.boxes[0].file, t.boxes[0].data, t.storage_elements * t.elem_bytes()}};
      return;
    }
    for (const common::Box& box : t.boxes)
      out.extents.push_back({box.file, box.data, *checked_product(box.sizes) * t.elem_bytes()});
  }

  Result<void> read(const Host& host, const DcpTensor& t, const xd_range& range,
                    std::span<std::byte> out) const {
    const bool is_strided = !t.strides.empty();  // elements are counted from the storage's first
    XD_TRY(common::check_dense(range, t.dtype, is_strided ? t.storage_elements : t.n_elems(), out));
    if (range.count == 0) return {};
    const auto read_file = [&](uint32_t file, uint64_t offset, std::span<std::byte> bytes) {
      return checkpoint_.files[file].source.read(host, offset, bytes);
    };
    if (is_strided)
      return read_file(t.boxes[0].file, t.boxes[0].data + range.begin * t.elem_bytes(), out);
    return common::read_boxes(t.shape, t.boxes, t.elem_bytes(), range.begin, range.count, out,
                              read_file);
  }

  Checkpoint checkpoint_;
  manifest::Value config_;
  std::vector<manifest::AuxFile> aux_files_;
};

constexpr xd_option_desc option(const char* name, const char* type, const char* fallback,
                                const char* help) {
  return {XD_INIT_SIZE(xd_option_desc), 0, name, type, fallback, help};
}
constexpr xd_option_desc kPath =
    option("state-dict-path", "string", "",
           "the dict of a .pt or .ckpt file, or of a distributed checkpoint, that is the model, as "
           "in \"a.b\"; \".\" is the top level");
constexpr xd_option_desc kVerify =
    option("verify-crc", "bool", "false", torch_read::kVerifyCrcHelp);
constexpr const xd_option_desc* kOptions[] = {&kPath, &kVerify, nullptr};
constexpr const char* kFormats[] = {"dcp", nullptr};
constexpr const char* kPatterns[] = {"*.distcp", nullptr};

}  // namespace

XD_EXPORT_PLUGINS(
    reader_plugin<DcpReader>({.id = "org.crossdock.reader.dcp",
                              .version = CROSSDOCK_VERSION,
                              .summary = "reads torch Distributed Checkpoints (.metadata and "
                                         ".distcp) without running their pickles",
                              .caps = XD_CAP_CONCURRENT | XD_CAP_TRAINING_STATE,
                              .formats = kFormats,
                              .patterns = kPatterns,
                              .options = kOptions}))

}  // namespace crossdock::reader_dcp
