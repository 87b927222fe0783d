// SPDX-License-Identifier: Apache-2.0

// org.crossdock.writer.universal: one folder that DeepSpeed loads at ZeRO stages 1, 2 and 3 with
// load_universal.
//
// What goes where is decided in open() (see Parts): parameters that train get a folder of their own
// under zero/, frozen ones are left out, buffers go to the model states files. Everything else
// follows from the manifest and the settings.
#include <fmt/format.h>
#include <crossdock/plugin.hpp>

#include <algorithm>
#include <limits>
#include <set>
#include <utility>

#include "plugins/common/quote.h"
#include "plugins/torch/write/pickle_writer.h"
#include "plugins/torch/write/stream.h"
#include "plugins/writer_universal/content.h"
#include "plugins/writer_universal/notes.h"
#include "plugins/writer_universal/settings.h"

namespace crossdock::writer_universal {
namespace {

using manifest::Role;
using manifest::Tensor;

enum class Kind {
  kLatest,
  kModelStates,
  kOptimizerState,
  kWeights,
  kMoment,      // zeros
  kKeptMoment,  // of a run that has begun
  kStep,
  kTrainerState,
  kScheduler
};

struct File {
  Kind kind;
  uint64_t tensor = 0;  // kWeights, kMoment; kKeptMoment: the one that holds it
};

bool is_buffer(const Tensor& tensor) {
  const auto kind = manifest::info(tensor.dtype).kind;
  return tensor.role == Role::kBuffer ||
         (kind != manifest::Kind::kFloat && kind != manifest::Kind::kFloat8);
}

Parts sort_out(const manifest::Manifest& model) {
  Parts out;
  for (uint64_t i = 0; i < model.tensors.size(); ++i) {
    const Tensor& tensor = model.tensors[i];
    if (!tensor.excluded.empty()) continue;  // the core has said why
    if (tensor.role == Role::kOptimizerState) {
      out.optimizer_states.push_back(i);
    } else if (is_buffer(tensor)) {
      out.buffers.push_back(i);
    } else if (tensor.train == manifest::Training::kFrozen) {
      out.frozen.push_back(i);
    } else {
      out.parameters.push_back(i);
    }
  }
  return out;
}

// torch counts elements, strides and bytes in int64.
bool fits_torch(const Tensor& tensor) {
  uint64_t n = 16;  // bytes of its largest element
  for (const uint64_t dim : tensor.shape) {
    const auto product = checked_mul(n, std::max<uint64_t>(dim, 1));
    if (!product || *product > uint64_t{std::numeric_limits<int64_t>::max()}) return false;
    n = *product;
  }
  return true;
}

Result<void> check_for_torch(const manifest::Manifest& model, std::span<const uint64_t> indexes) {
  for (const uint64_t i : indexes) {
    const Tensor& tensor = model.tensors[i];
    if (!torch_write::torch_has(tensor.dtype)) {
      return unsupported(fmt::format(
          "tensor {}: expected an element type that torch.save can write, found {}: convert "
          "it in the source first",
          common::in_quotes(tensor.name), manifest::name(tensor.dtype)));
    }
    if (!fits_torch(tensor)) {
      return unsupported(fmt::format(
          "tensor {}: expected a shape that torch can count in int64, found a dimension, or "
          "a product of them, that is larger",
          common::in_quotes(tensor.name)));
    }
  }
  return {};
}

class UniversalWriter : public Writer {
 public:
  static Result<std::unique_ptr<Writer>> open(const Host&, manifest::Manifest model,
                                              const Options& options) {
    XD_TRY_SET(auto settings, Settings::from(options, model));
    const auto is_trainers = [](const manifest::AuxFile& f) {
      return f.kind == manifest::AuxKind::kTrainer;
    };
    // The source's own files of the Trainer, which are copied, know more.
    if (std::ranges::any_of(model.aux_files, is_trainers)) settings.hf_trainer = false;
    // Of no use but in a training checkpoint, and a GGUF file's is large.
    if (model.training.moments.empty()) model.source.metadata = {};
    Parts parts = sort_out(model);
    if (parts.parameters.empty()) {
      return invalid(fmt::format(
          "expected at least one parameter to train, found none ({} frozen, {} buffers): look at "
          "--trainable and --frozen; --trainable . trains all",
          parts.frozen.size(), parts.buffers.size()));
    }
    XD_TRY(check_folder_names(model.tensors, parts.parameters));
    XD_TRY(check_for_torch(model, parts.parameters));
    XD_TRY(check_for_torch(model, parts.buffers));
    return std::unique_ptr<Writer>(
        new UniversalWriter(std::move(settings), std::move(model), std::move(parts)));
  }

  Result<void> plan(const Host&, Plan& out) override {
    files_.clear();
    XD_TRY(plan_text(out, Kind::kLatest, std::string(kLatest)));
    const std::string tag = settings_.tag + "/";
    for (const char* name :
         {"mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_model_states.pt"}) {
      XD_TRY(plan_file(out, {Kind::kModelStates}, tag + name, model_states_));
    }
    const std::string zero = tag + "zero/";
    XD_TRY(plan_file(out, {Kind::kOptimizerState}, zero + "optimizer_state.pt",
                     optimizer_state(model_, training_)));
    for (const uint64_t i : parts_.parameters)
      XD_TRY(plan_parameter(out, zero + model_.tensors[i].target() + "/", i));
    if (settings_.hf_trainer) {
      XD_TRY(plan_text(out, Kind::kTrainerState, std::string(kTrainerState)));
      XD_TRY(plan_file(out, {Kind::kScheduler}, std::string(kScheduler), scheduler(training_)));
    }
    XD_TRY(plan_aux(out));
    XD_TRY(plan_excludes(out));
    for (const std::string& text : notes(model_, parts_, settings_)) XD_TRY(out.note(text));
    return {};
  }

  Result<std::string> write_item(const Host& host, uint32_t object, uint64_t item,
                                 Object& out) override {
    return with_content(object, [&](const Content& content) {
      return torch_write::write_item(host, content, torch_write::cut(content).at(item), out);
    });
  }

  Result<void> seal(const Host& host, uint32_t object, Object& out,
                    std::span<const std::string_view> results) override {
    if (const std::string text = text_of(files_.at(object).kind); !text.empty())
      return out.write(0, as_bytes(text));
    return with_content(object,
                        [&](const Content& c) { return torch_write::seal(host, c, out, results); });
  }

 private:
  UniversalWriter(Settings settings, manifest::Manifest model, Parts parts)
      : settings_(std::move(settings)),
        model_(std::move(model)),
        parts_(std::move(parts)),
        training_(model_),
        model_states_(model_states(model_, parts_, training_)),
        step_(step(training_)) {}

  // The files that are plain text; empty for the others.
  std::string text_of(Kind kind) const {
    if (kind == Kind::kLatest) return settings_.tag;
    return kind == Kind::kTrainerState ? trainer_state_json(training_) : std::string();
  }

  // Calls `use` with what the object holds. Most contents are cheaper to make again than to keep
  // for 100,000 files.
  auto with_content(uint32_t object, auto&& use) const
      -> decltype(use(std::declval<const Content&>())) {
    const File& file = files_.at(object);
    const Tensor& tensor = model_.tensors[file.tensor];
    switch (file.kind) {
      case Kind::kModelStates:
        return use(model_states_);
      case Kind::kOptimizerState:
        return use(optimizer_state(model_, training_));
      case Kind::kWeights:
        return use(weights(tensor, file.tensor, settings_.keep_dtype));
      case Kind::kMoment:
        return use(moment(tensor, settings_.moments));
      case Kind::kKeptMoment:
        return use(kept_moment(tensor, file.tensor));
      case Kind::kScheduler:
        return use(scheduler(training_));
      default:
        return use(step_);
    }
  }

  Result<uint32_t> plan_object(Plan& out, File file, const std::string& path, uint64_t size) {
    XD_TRY_SET(const uint32_t id, out.object(path, size));
    if (files_.size() <= id) files_.resize(id + 1);
    files_[id] = file;
    return id;
  }

  Result<void> plan_text(Plan& out, Kind kind, const std::string& path) {
    auto id = plan_object(out, {kind}, path, text_of(kind).size());
    if (!id) return std::move(id).error();
    return {};
  }

  Result<void> plan_file(Plan& out, File file, const std::string& path, const Content& content) {
    XD_TRY_SET(const uint32_t id, plan_object(out, file, path, content.file.size()));
    return torch_write::plan_items(out, id, content);
  }

  Result<void> plan_parameter(Plan& out, const std::string& folder, uint64_t index) {
    const Tensor& tensor = model_.tensors[index];
    XD_TRY(plan_file(out, {Kind::kWeights, index}, folder + "fp32.pt",
                     weights(tensor, index, settings_.keep_dtype)));
    if (settings_.moments == Moments::kNone) return {};
    const auto& kept = training_.moments_of(index);
    for (const auto& [kind, state] : kept)
      XD_TRY(plan_file(out, {Kind::kKeptMoment, state}, folder + kind + ".pt",
                       kept_moment(model_.tensors[state], state)));
    if (!kept.empty()) return plan_file(out, {Kind::kStep}, folder + "step.pt", step_);
    const Content zeros = moment(tensor, settings_.moments);
    XD_TRY(plan_file(out, {Kind::kMoment, index}, folder + "exp_avg.pt", zeros));
    XD_TRY(plan_file(out, {Kind::kMoment, index}, folder + "exp_avg_sq.pt", zeros));
    return plan_file(out, {Kind::kStep}, folder + "step.pt", step_);
  }

  Result<void> plan_aux(Plan& out) {
    for (uint64_t i = 0; i < model_.aux_files.size(); ++i) {
      const std::string& name = model_.aux_files[i].name;
      if (is_own_name(name, settings_)) {
        XD_TRY(out.note(
            fmt::format("{} of the source is not copied: the checkpoint has a file of that name",
                        common::in_quotes(name))));
      } else {
        XD_TRY(out.aux(name, i));
      }
    }
    return {};
  }

  Result<void> plan_excludes(Plan& out) {
    for (const uint64_t i : parts_.frozen) {
      XD_TRY(out.exclude(
          i, "frozen: DeepSpeed restores no frozen parameters from a universal checkpoint"));
    }
    std::set<uint64_t> kept;
    for (const uint64_t i : parts_.parameters) {
      for (const auto& [kind, state] : training_.moments_of(i)) kept.insert(state);
    }
    for (const uint64_t i : parts_.optimizer_states) {
      if (settings_.moments == Moments::kNone || !kept.contains(i))
        XD_TRY(
            out.exclude(i, "optimizer state of a parameter that is not trained, or not asked for"));
    }
    return {};
  }

  const Settings settings_;
  const manifest::Manifest model_;
  const Parts parts_;
  const torch_write::Training training_;
  const Content model_states_;  // large when the model has many parameters
  const Content step_;
  std::vector<File> files_;  // by object
};

constexpr const char* kFormats[] = {"universal", nullptr};

}  // namespace

XD_EXPORT_PLUGINS(writer_plugin<UniversalWriter>(
    {.id = "org.crossdock.writer.universal",
     .version = CROSSDOCK_VERSION,
     .summary = "DeepSpeed Universal checkpoint, for ZeRO stages 1, 2 and 3",
     .caps = XD_CAP_CONCURRENT | XD_CAP_TRAINING_STATE,
     .formats = kFormats,
     .options = kOptions}))

}  // namespace crossdock::writer_universal
