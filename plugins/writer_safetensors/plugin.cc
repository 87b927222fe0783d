// SPDX-License-Identifier: Apache-2.0

// org.crossdock.writer.safetensors: a Hugging Face folder, as save_pretrained leaves it.
//
// Objects 0 to n - 1 are the files of tensors; then comes the index, if there are several, and
// config.json, if what it says of the element type must change. All other files beside the tensors
// the host copies.
#include <crossdock/file_name.hpp>
#include <crossdock/plugin.hpp>

#include <algorithm>

#include "plugins/common/quote.h"
#include "plugins/writer_safetensors/stream.h"

namespace crossdock::writer_safetensors {
namespace {

using manifest::Manifest;

constexpr std::string_view kConfig = "config.json";

class SafetensorsWriter : public Writer {
 public:
  static Result<std::unique_ptr<Writer>> open(const Host&, Manifest model, const Options& options) {
    XD_TRY_SET(const auto settings, Settings::from(options));
    model.source.metadata = {};  // of no use here, and a GGUF file's is large
    XD_TRY_SET(auto files, make_files(model, settings));
    return std::unique_ptr<Writer>(
        new SafetensorsWriter(settings, std::move(model), std::move(files)));
  }

  Result<void> plan(const Host&, Plan& out) override {
    for (const File& file : files_) {
      XD_TRY_SET(const uint32_t id, out.object(file.name, file.head_bytes + file.data_bytes));
      XD_TRY(plan_items(out, id, file));
    }
    if (files_.size() > 1) XD_TRY(plan_text(out, kIndex, index_text(files_, model_)));
    if (!config_.empty()) XD_TRY(plan_text(out, kConfig, config_));
    XD_TRY(plan_aux(out));
    for (uint64_t i = 0; i < model_.tensors.size(); ++i) {
      const manifest::Tensor& t = model_.tensors[i];
      if (t.excluded.empty() && t.role == manifest::Role::kOptimizerState)
        XD_TRY(out.exclude(i, "optimizer state: the folder is of a model"));
    }
    if (common::find_config(model_)) return {};
    return out.note(
        "The source has no config.json, without which transformers does not load the folder: put "
        "the model's own beside the weights.");
  }

  Result<std::string> write_item(const Host& host, uint32_t object, uint64_t item,
                                 Object& out) override {
    const File& file = files_.at(object);
    XD_TRY_SET(const common::Overflow overflow,
               writer_safetensors::write_item(host, model_, file, cut(file).at(item), out));
    return encode(overflow);
  }

  // All values of the file have been seen, and nothing is in place yet.
  Result<void> seal(const Host& host, uint32_t object, Object& out,
                    std::span<const std::string_view> results) override {
    if (object >= files_.size()) {
      const bool is_index = files_.size() > 1 && object == files_.size();
      return out.write(0, as_bytes(is_index ? index_text(files_, model_) : config_));
    }
    const File& file = files_[object];
    XD_TRY_SET(const common::Overflow overflow, joined(results));
    XD_TRY(common::report_overflow(host, model_, settings_.cast, file.name, overflow));
    const bool has_items = !file.tensors.empty();
    return has_items ? Result<void>() : out.write(0, as_bytes(head(file, model_)));
  }

 private:
  SafetensorsWriter(const Settings& settings, Manifest model, std::vector<File> files)
      : settings_(settings),
        model_(std::move(model)),
        files_(std::move(files)),
        config_(common::changed_config(model_, settings_.cast)) {}

  static Result<void> plan_text(Plan& out, std::string_view path, const std::string& text) {
    auto id = out.object(std::string(path), text.size());
    return id ? Result<void>() : std::move(id).error();
  }

  bool is_own_name(std::string_view name) const {
    const std::string folded = fold_case(name);
    const auto is = [&](std::string_view own) { return folded == own; };
    return (is(kConfig) && !config_.empty()) || is(kIndex) || is("crossdock.json") ||
           std::ranges::any_of(files_, is, &File::name);
  }

  Result<void> plan_aux(Plan& out) const {
    for (uint64_t i = 0; i < model_.aux_files.size(); ++i) {
      const std::string& name = model_.aux_files[i].name;
      if (name == kConfig && !config_.empty()) continue;
      XD_TRY(is_own_name(name)
                 ? out.note(cat(common::in_quotes(name),
                                " of the source is not copied: the folder has a file of that name"))
                 : out.aux(name, i));
    }
    return {};
  }

  const Settings settings_;
  const Manifest model_;
  const std::vector<File> files_;
  const std::string config_;  // empty: the source's own is copied
};

constexpr const char* kFormats[] = {"safetensors", nullptr};

}  // namespace

XD_EXPORT_PLUGINS(writer_plugin<SafetensorsWriter>(
    {.id = "org.crossdock.writer.safetensors",
     .version = CROSSDOCK_VERSION,
     .summary = "Hugging Face folder of safetensors, with index and config.json",
     .caps = XD_CAP_CONCURRENT | XD_CAP_FILE_NAMES,
     .formats = kFormats,
     .options = kOptions}))

}  // namespace crossdock::writer_safetensors
