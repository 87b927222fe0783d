// org.crossdock.reader.zero: reads DeepSpeed's checkpoints of ZeRO stages 1, 2 and 3.
//
// open() reads directories and pickles only, one file at a time, and makes of each tensor the
// segments of the ranks' files that hold its values, and where ranks share a layer the boxes of
// these. read() is a read of each segment that the range touches. What open() made is immutable, so
// reads may run concurrently.
#include "plugins/common/hf_folder.h"
#include "plugins/common/read_range.h"
#include "plugins/deepspeed/folders.h"
#include "plugins/deepspeed/rounded.h"
#include "plugins/reader_zero/checkpoint.h"
#include "plugins/reader_zero/files.h"
#include "plugins/torch/read/torch_file.h"

namespace crossdock::reader_zero {

namespace {

using manifest::Manifest;

class ZeroReader : public Reader {
 public:
  static int probe(const Host& host, const Input& input) { return score(host, input); }

  static Result<std::unique_ptr<Reader>> open(const Host& host, const Input& input,
                                              const Options& options) {
    auto out = std::make_unique<ZeroReader>();
    XD_TRY_SET(
        out->checkpoint_,
        open_checkpoint(host, input, options.text("from-tag"),
                        options.text("weights") == "model" ? Weights::kModel : Weights::kMaster,
                        options.flag("verify-crc")));
    const auto names = input.names(host);
    Manifest& m = out->checkpoint_.manifest;
    XD_TRY_SET(m.source.config, common::read_config(host, input, names));
    m.aux_files = common::aux_files(names);
    return std::unique_ptr<Reader>(std::move(out));
  }

  Result<Manifest> manifest(const Host&) override { return checkpoint_.manifest; }

  Result<void> read(const Host& host, const xd_range& range, std::span<std::byte> out) override {
    return common::read_one_of(
        checkpoint_.manifest.tensors, range, [](const manifest::Tensor& t) { return t.name; },
        [&](const manifest::Tensor& t) -> Result<void> {
          const Content& content = checkpoint_.contents[range.tensor];
          XD_TRY(common::check_dense(range, t.dtype, content.n_elems(), out));
          const auto read = [&](uint64_t begin, std::span<std::byte> to) {
            return content.read(host, checkpoint_.sources, begin, to);
          };
          const bool is_rounded = content.elem_bytes() != manifest::info(t.dtype).bits / 8;
          return is_rounded ? deepspeed::read_rounded(t.dtype, range.begin, out, read)
                            : read(range.begin, out);
        });
  }

 private:
  Merged checkpoint_;
};

constexpr xd_option_desc option(const char* name, const char* type, const char* fallback,
                                const char* help) {
  return {XD_INIT_SIZE(xd_option_desc), 0, name, type, fallback, help};
}
constexpr xd_option_desc kTag = option("from-tag", "string", "", deepspeed::kTagHelp);
constexpr xd_option_desc kWeights =
    option("weights", "enum:master|model", "master",
           "master: the optimizer's fp32 weights; model: the job's own, in its type");
constexpr xd_option_desc kVerify =
    option("verify-crc", "bool", "false", torch_read::kVerifyCrcHelp);
constexpr const xd_option_desc* kOptions[] = {&kTag, &kWeights, &kVerify, nullptr};
constexpr const char* kFormats[] = {"zero", nullptr};
constexpr const char* kPatterns[] = {"*_optim_states.pt", "*_model_states.pt", nullptr};

constexpr xd_reader_api kApi = reader_api<ZeroReader>();
constexpr xd_plugin_desc kDesc{
    XD_INIT_SIZE(xd_plugin_desc),
    XD_READER,
    XD_CAP_CONCURRENT | XD_CAP_TRAINING_STATE,
    "org.crossdock.reader.zero",
    CROSSDOCK_VERSION,
    "reads DeepSpeed's checkpoints of ZeRO stages 1, 2 and 3, of any number of ranks",
    kFormats,
    kPatterns,
    kOptions,
    &kApi,
    nullptr};
constexpr const xd_plugin_desc* kPlugins[] = {&kDesc, nullptr};
constexpr xd_library kLibrary{XD_INIT_SIZE(xd_library), XD_ABI_MINOR, kPlugins, nullptr};

}  // namespace

}  // namespace crossdock::reader_zero

xd_status xd_plugin_v1(const xd_host*, const xd_library** out, xd_error*) {
  *out = &crossdock::reader_zero::kLibrary;
  return XD_OK;
}
