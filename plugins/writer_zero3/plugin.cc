// SPDX-License-Identifier: Apache-2.0

// org.crossdock.writer.zero3: what DeepSpeed would have saved itself at ZeRO stage 3 with so many
// ranks.
//
// Each rank has two files; objects 2r and 2r + 1 are those of rank r, the last one is `latest`. A
// file's content is made anew for each call: keeping it for a thousand ranks would cost more than
// making it.
#include <crossdock/plugin.hpp>

#include "plugins/common/quote.h"
#include "plugins/torch/write/results.h"
#include "plugins/torch/write/stream.h"
#include "plugins/writer_zero3/hyper_parameters.h"
#include "plugins/writer_zero3/states.h"

namespace crossdock::writer_zero3 {
namespace {

class Zero3Writer : public Writer {
 public:
  static Result<std::unique_ptr<Writer>> open(const Host&, manifest::Manifest model,
                                              const Options& options) {
    XD_TRY_SET(auto settings, Settings::from(options, model));
    for (const manifest::Moment& moment : model.training.moments) {
      if (moment.kind != "exp_avg" && moment.kind != "exp_avg_sq")
        return unsupported(
            cat("expected the state of an optimizer of the Adam kind (exp_avg and "
                "exp_avg_sq), which these shards hold, found ",
                common::in_quotes(moment.kind),
                ": use --to universal, which keeps it for stages 1 and 2"));
    }
    // Of no use but in a training checkpoint, and a GGUF file's is large.
    if (model.training.moments.empty()) model.source.metadata = {};
    auto& training = model.training;
    XD_TRY_SET(settings.optimizer, choose_optimizer(settings, training.optimizer));
    // The optimizer that --target describes is the job's as it is; of others DeepSpeed drops the
    // groups without members.
    if (training.optimizer.empty())
      std::erase_if(training.groups, [](const auto& g) { return g.tensors.empty(); });
    XD_TRY_SET(auto layout, make_layout(model, settings));
    XD_TRY_SET(auto notes, complete_groups(settings, *settings.optimizer, training));
    return std::unique_ptr<Writer>(new Zero3Writer(std::move(settings), std::move(model),
                                                   std::move(layout), std::move(notes)));
  }

  Result<void> plan(const Host& host, Plan& out) override {
    const std::string folder = settings_.tag + "/";
    for (uint64_t rank = 0; rank < settings_.world_size; ++rank) {
      if (host.cancelled()) return Error{XD_CANCELLED, "cancelled"};
      XD_TRY(plan_file(out, folder + model_states_name(rank),
                       model_states(model_, layout_, settings_, rank)));
      XD_TRY(plan_file(out, folder + optimizer_states_name(settings_, rank),
                       optimizer_states(model_, layout_, settings_, rank)));
    }
    XD_TRY(out.object(std::string(kLatest), settings_.tag.size()));
    for (uint64_t i = 0; i < model_.aux_files.size(); ++i) {
      const std::string& name = model_.aux_files[i].name;
      const bool is_taken = name == kLatest || name.substr(0, name.find('/')) == settings_.tag;
      XD_TRY(is_taken ? out.note(cat(common::in_quotes(name),
                                     " of the source is not copied: the checkpoint has that name"))
                      : out.aux(name, i));
    }
    return plan_notes(out);
  }

  Result<std::string> write_item(const Host& host, uint32_t object, uint64_t item,
                                 Object& out) override {
    const torch_write::Content made = content(object);
    return torch_write::write_item(host, made, torch_write::cut(made).at(item), out);
  }

  // All values of the file have been seen, and nothing is in place yet.
  Result<void> seal(const Host& host, uint32_t object, Object& out,
                    std::span<const std::string_view> results) override {
    if (object == 2 * settings_.world_size) return out.write(0, as_bytes(settings_.tag));
    XD_TRY_SET(const auto all, torch_write::joined(results));
    if (all.n_beyond_fp16 > 0)
      return unsupported(
          cat("--dtype fp16: expected values that fp16 can hold, up to 65504, found ",
              all.n_beyond_fp16, " beyond: use --dtype bf16 or fp32"));
    return torch_write::seal(host, content(object), out, results);
  }

 private:
  Zero3Writer(Settings settings, manifest::Manifest model, Layout layout,
              std::vector<std::string> notes)
      : settings_(std::move(settings)),
        model_(std::move(model)),
        layout_(std::move(layout)),
        notes_(std::move(notes)) {}

  torch_write::Content content(uint32_t object) const {
    return object % 2 == 0 ? model_states(model_, layout_, settings_, object / 2)
                           : optimizer_states(model_, layout_, settings_, object / 2);
  }

  static Result<void> plan_file(Plan& out, const std::string& path,
                                const torch_write::Content& content) {
    XD_TRY_SET(const uint32_t object, out.object(path, content.file.size()));
    return torch_write::plan_items(out, object, content);
  }

  Result<void> plan_notes(Plan& out) const {
    const bool is_on = settings_.config && settings_.config->load_universal.is(true);
    XD_TRY(out.note(cat("Load it at ZeRO stage 3 with ", settings_.world_size,
                        " ranks, sub_group_size ", settings_.sub_group_size,
                        " and the same optimizer groups (", model_.training.groups.size(), ")",
                        is_on ? ", and with load_universal off, which is on in --ds-config: "
                                "DeepSpeed would look for another checkpoint."
                              : "; load_universal stays off.")));
    if (settings_.config && settings_.config->offload_param.is("nvme"))
      XD_TRY(
          out.note("Parameters that offload_param keeps on NVMe beyond max_in_cpu are not restored "
                   "by DeepSpeed, which "
                   "then fails."));
    for (const std::string& text : notes_) XD_TRY(out.note(text));
    if (settings_.dense_moments || !model_.training.moments.empty()) return {};
    return out.note(
        "The zeros of the moments are holes: they take no disk here, but may in a copy (rsync and "
        "tar want --sparse).");
  }

  const Settings settings_;
  const manifest::Manifest model_;
  const Layout layout_;
  const std::vector<std::string> notes_;  // of the optimizer
};

constexpr const char* kFormats[] = {"zero3", nullptr};

}  // namespace

XD_EXPORT_PLUGINS(writer_plugin<Zero3Writer>(
    {.id = "org.crossdock.writer.zero3",
     .version = CROSSDOCK_VERSION,
     .summary = "DeepSpeed's own ZeRO stage 3 checkpoint, for a chosen number of ranks",
     .caps = XD_CAP_CONCURRENT | XD_CAP_MODULE | XD_CAP_TRAINING_STATE,
     .formats = kFormats,
     .options = kOptions}))

}  // namespace crossdock::writer_zero3
