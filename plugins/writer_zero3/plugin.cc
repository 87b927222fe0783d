// org.crossdock.writer.zero3: what DeepSpeed would have saved itself at ZeRO stage 3 with so many ranks.
//
// Each rank has two files; objects 2r and 2r + 1 are those of rank r, the last one is `latest`. A file's content is
// made anew for each call: keeping it for a thousand ranks would cost more than making it.
#include <crossdock/plugin.hpp>

#include "plugins/common/quote.h"
#include "plugins/common/torch_stream.h"
#include "plugins/writer_zero3/states.h"

namespace crossdock::writer_zero3 {
namespace {

class Zero3Writer : public Writer {
 public:
  static Result<std::unique_ptr<Writer>> open(const Host&, manifest::Manifest model, const Options& options) {
    XD_TRY_SET(auto settings, Settings::from(options));
    model.source.metadata = {};  // of no use here, and a GGUF file's is large
    XD_TRY(settings.check_optimizer(model.training.optimizer));
    XD_TRY_SET(auto layout, make_layout(model, settings));
    return std::unique_ptr<Writer>(new Zero3Writer(std::move(settings), std::move(model), std::move(layout)));
  }

  Result<void> plan(const Host& host, Plan& out) override {
    const std::string folder = settings_.tag + "/";
    for (uint64_t rank = 0; rank < settings_.world_size; ++rank) {
      if (host.cancelled()) return Error{XD_CANCELLED, "cancelled"};
      XD_TRY(plan_file(out, folder + model_states_name(rank), model_states(model_, layout_, settings_, rank)));
      XD_TRY(plan_file(out, folder + optimizer_states_name(settings_, rank),
                       optimizer_states(model_, layout_, settings_, rank)));
    }
    XD_TRY(out.object(std::string(kLatest), settings_.tag.size()));
    for (uint64_t i = 0; i < model_.aux_files.size(); ++i) {
      const std::string& name = model_.aux_files[i].name;
      const bool is_taken = name == kLatest || name.substr(0, name.find('/')) == settings_.tag;
      XD_TRY(is_taken
                 ? out.note(cat(common::in_quotes(name), " of the source is not copied: the checkpoint has that name"))
                 : out.aux(name, i));
    }
    return plan_notes(out);
  }

  Result<std::string> write_item(const Host& host, uint32_t object, uint64_t, Object& out) override {
    return common::write_item(host, content(object), out,
                              settings_.dtype == manifest::DType::F16 ? &beyond_fp16_ : nullptr);
  }

  // All values have been seen, and nothing is in place yet.
  Result<void> commit(const Host&) override {
    const uint64_t n = beyond_fp16_;
    if (n == 0) return {};
    return unsupported(cat("--dtype fp16: expected values that fp16 can hold, up to 65504, found ", n,
                           " beyond: use --dtype bf16 or fp32"));
  }

  Result<void> seal(const Host& host, uint32_t object, Object& out,
                    std::span<const std::string_view> results) override {
    if (object == 2 * settings_.world_size) return out.write(0, as_bytes(settings_.tag));
    return common::seal(host, content(object), out, results);
  }

 private:
  Zero3Writer(Settings settings, manifest::Manifest model, Layout layout)
      : settings_(std::move(settings)), model_(std::move(model)), layout_(std::move(layout)) {}

  common::Content content(uint32_t object) const {
    return object % 2 == 0 ? model_states(model_, layout_, settings_, object / 2)
                           : optimizer_states(model_, layout_, settings_, object / 2);
  }

  static Result<void> plan_file(Plan& out, const std::string& path, const common::Content& content) {
    XD_TRY_SET(const uint32_t object, out.object(path, content.file.size()));
    if (!common::needs_item(content)) return {};
    return out.item(object, common::needs(content), common::item_bytes(content), common::item_memory(content));
  }

  Result<void> plan_notes(Plan& out) const {
    XD_TRY(out.note(cat("Load it at ZeRO stage 3 with ", settings_.world_size, " ranks, sub_group_size ",
                        settings_.sub_group_size, " and the same optimizer groups; load_universal stays off.")));
    XD_TRY(out.note(
        "Loading replaces the job's lr, betas, eps and weight_decay by the checkpoint's: those of --lr, --betas, "
        "--eps and --weight-decay, or of the groups that --target describes. Set them before the first step, "
        "or let an lr scheduler do so."));
    if (settings_.dense_moments) return {};
    return out.note(
        "The zeros of the moments are holes: they take no disk here, but may in a copy (rsync and tar want --sparse).");
  }

  const Settings settings_;
  const manifest::Manifest model_;
  const Layout layout_;
  std::atomic<uint64_t> beyond_fp16_ = 0;
};

constexpr xd_writer_api kApi = writer_api<Zero3Writer>();
constexpr const char* kFormats[] = {"zero3", nullptr};
constexpr const char* kPatterns[] = {nullptr};
const xd_plugin_desc kPlugin = {XD_INIT_SIZE(xd_plugin_desc),
                                XD_WRITER,
                                XD_CAP_CONCURRENT | XD_CAP_MODULE,
                                "org.crossdock.writer.zero3",
                                CROSSDOCK_VERSION,
                                "DeepSpeed's own ZeRO stage 3 checkpoint, for a chosen number of ranks",
                                kFormats,
                                kPatterns,
                                kOptions,
                                nullptr,
                                &kApi};
const xd_plugin_desc* const kPlugins[] = {&kPlugin, nullptr};
const xd_module kModule = {XD_INIT_SIZE(xd_module), XD_ABI_MINOR, kPlugins, nullptr};

}  // namespace
}  // namespace crossdock::writer_zero3

extern "C" xd_status xd_plugin_v1(const xd_host*, const xd_module** out, xd_error*) {
  *out = &crossdock::writer_zero3::kModule;
  return XD_OK;
}
