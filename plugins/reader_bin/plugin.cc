// SPDX-License-Identifier: Apache-2.0

// org.crossdock.reader.bin: reads the checkpoints of torch.save: pytorch_model.bin, its shards,
// .pt, .pth and .ckpt.
//
// open() reads directories and pickles only, one file at a time. read() is one read of the file: of
// a dense tensor's values, or of the storage of a strided one, from which the host picks them. What
// open() made is immutable but for the
// streams of deflated records, which have a lock, so reads may run concurrently.
#include "plugins/common/hf_folder.h"
#include "plugins/common/read_range.h"
#include "plugins/reader_bin/checkpoint.h"
#include "plugins/torch/read/torch_file.h"

namespace crossdock::reader_bin {

namespace {

using manifest::Manifest;

class BinReader : public Reader {
 public:
  static int probe(const Host& host, const Input& input) { return score(host, input); }

  static Result<std::unique_ptr<Reader>> open(const Host& host, const Input& input,
                                              const Options& options) {
    const auto names = input.names(host);
    auto out = std::make_unique<BinReader>();
    XD_TRY_SET(out->config_, common::read_config(host, input, names));
    XD_TRY_SET(out->checkpoint_,
               open_checkpoint(host, input, out->config_,
                               {options.text("variant"), options.text("state-dict-path"),
                                options.flag("verify-crc")}));
    out->aux_files_ = common::aux_files(names);
    return std::unique_ptr<Reader>(std::move(out));
  }

  Result<Manifest> manifest(const Host&) override {
    Manifest out;
    out.source.format = "bin";
    out.source.config = config_;
    out.aux_files = aux_files_;
    out.alias_groups = checkpoint_.aliases;
    for (const CheckpointFile& file : checkpoint_.files)
      out.source.files.push_back({file.name, file.size, {}});
    out.tensors.reserve(checkpoint_.tensors.size());
    for (const BinTensor& t : checkpoint_.tensors) describe(t, out.tensors.emplace_back());
    return out;
  }

  Result<void> read(const Host& host, const xd_range& range, std::span<std::byte> out) override {
    return common::read_one_of(
        checkpoint_.tensors, range, [](const BinTensor& t) { return t.name; },
        [&](const BinTensor& t) {
          return t.stored.read(host, *checkpoint_.files[t.file].torch, range, out);
        });
  }

 private:
  void describe(const BinTensor& t, manifest::Tensor& out) const {
    out.name = t.name;
    t.stored.describe(*checkpoint_.files[t.file].torch, t.file, out);
    if (t.is_parameter && manifest::info(out.dtype).kind == manifest::Kind::kFloat) {
      out.role = manifest::Role::kParameter;
      out.train = t.is_frozen ? manifest::Training::kFrozen : manifest::Training::kTrainable;
    }
  }

  Checkpoint checkpoint_;
  manifest::Value config_;
  std::vector<manifest::AuxFile> aux_files_;
};

constexpr xd_option_desc option(const char* name, const char* type, const char* fallback,
                                const char* help) {
  return {XD_INIT_SIZE(xd_option_desc), 0, name, type, fallback, help};
}
constexpr xd_option_desc kVariant =
    option("variant", "string", "",
           "which weights of a folder that has several: fp16 for pytorch_model.fp16.bin");
constexpr xd_option_desc kPath = option(
    "state-dict-path", "string", "",
    "the dict of a .pt or .ckpt file that is the model, as in \"a.b\"; \".\" is the top level");
constexpr xd_option_desc kVerify =
    option("verify-crc", "bool", "false", torch_read::kVerifyCrcHelp);
constexpr const xd_option_desc* kOptions[] = {&kVariant, &kPath, &kVerify, nullptr};
constexpr const char* kFormats[] = {"bin", nullptr};
constexpr const char* kPatterns[] = {
    "*.bin", "*.pt", "*.pth", "*.ckpt", "pytorch_model.bin.index.json", nullptr};

}  // namespace

XD_EXPORT_PLUGINS(reader_plugin<BinReader>(
    {.id = "org.crossdock.reader.bin",
     .version = CROSSDOCK_VERSION,
     .summary = "reads PyTorch checkpoints (.bin, .pt, .pth, .ckpt) without running their pickles",
     .formats = kFormats,
     .patterns = kPatterns,
     .options = kOptions}))

}  // namespace crossdock::reader_bin
