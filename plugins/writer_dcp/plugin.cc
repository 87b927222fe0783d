// SPDX-License-Identifier: Apache-2.0

// org.crossdock.writer.dcp: a folder of torch.distributed.checkpoint.
//
// Objects 0 to n - 1 are the shards; then comes .metadata, and config.json, if what it says of the
// element type must change. All other files beside the tensors the host copies.
#include <crossdock/file_name.hpp>

#include <algorithm>

#include "plugins/common/quote.h"
#include "plugins/writer_dcp/items.h"
#include "plugins/writer_dcp/metadata.h"

namespace crossdock::writer_dcp {
namespace {

using manifest::Manifest;

constexpr std::string_view kConfig = "config.json";

// Where accelerate's load_state looks for the first model.
std::string_view folder_of(Profile profile) {
  return profile == Profile::kAccelerate ? "pytorch_model_fsdp_0/" : "";
}

class DcpWriter : public Writer {
 public:
  static Result<std::unique_ptr<Writer>> open(const Host&, Manifest model, const Options& options) {
    XD_TRY_SET(const auto settings, Settings::from(options));
    model.source.metadata = {};  // of no use here, and a GGUF file's is large
    XD_TRY_SET(auto layout, make_layout(model, settings));
    return std::unique_ptr<Writer>(new DcpWriter(settings, std::move(model), std::move(layout)));
  }

  Result<void> plan(const Host&, Plan& out) override {
    const std::string folder(folder_of(settings_.profile));
    for (const Shard& shard : layout_.shards) {
      XD_TRY_SET(const uint32_t id, out.object(folder + shard.file, shard.n_bytes));
      XD_TRY(plan_items(out, id, layout_, shard));
    }
    XD_TRY(plan_text(out, cat(folder, kMetadataFile), metadata_));
    if (!config_.empty()) XD_TRY(plan_text(out, std::string(kConfig), config_));
    XD_TRY(plan_aux(out));
    for (uint64_t i = 0; i < model_.tensors.size(); ++i) {
      const manifest::Tensor& t = model_.tensors[i];
      if (t.excluded.empty() && t.role == manifest::Role::kOptimizerState)
        XD_TRY(out.exclude(i, "optimizer state: the folder is of a model"));
    }
    return {};
  }

  Result<std::string> write_item(const Host& host, uint32_t object, uint64_t item,
                                 Object& out) override {
    const Shard& shard = layout_.shards.at(object);
    XD_TRY_SET(const ItemResult result, writer_dcp::write_item(host, model_, layout_, shard,
                                                               cut(layout_, shard).at(item), out));
    return result.encode();
  }

  Result<void> seal(const Host& host, uint32_t object, Object& out,
                    std::span<const std::string_view> results) override {
    const size_t n_shards = layout_.shards.size();
    if (object >= n_shards) return out.write(0, as_bytes(object == n_shards ? metadata_ : config_));
    const Shard& shard = layout_.shards[object];
    XD_TRY_SET(const auto overflow, writer_dcp::seal(layout_, shard, out, results));
    return common::report_overflow(host, model_, settings_.cast, shard.file, overflow);
  }

 private:
  DcpWriter(const Settings& settings, Manifest model, Layout layout)
      : settings_(settings),
        model_(std::move(model)),
        layout_(std::move(layout)),
        metadata_(metadata_of(layout_, settings_.prefix)),
        config_(common::changed_config(model_, settings_.cast)) {}

  static Result<void> plan_text(Plan& out, const std::string& path, const std::string& text) {
    auto id = out.object(path, text.size());
    return id ? Result<void>() : std::move(id).error();
  }

  bool is_own_name(std::string_view name) const {
    const std::string folded = fold_case(name), folder(folder_of(settings_.profile));
    const auto is = [&](std::string_view own) { return folded == cat(folder, own); };
    return (folded == kConfig && !config_.empty()) || folded == "crossdock.json" ||
           is(kMetadataFile) || std::ranges::any_of(layout_.shards, is, &Shard::file);
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
  const Layout layout_;
  const std::string metadata_;
  const std::string config_;  // empty: the source's own is copied
};

constexpr const char* kFormats[] = {"dcp", nullptr};

}  // namespace

XD_EXPORT_PLUGINS(writer_plugin<DcpWriter>(
    {.id = "org.crossdock.writer.dcp",
     .version = CROSSDOCK_VERSION,
     .summary = "torch Distributed Checkpoint (FSDP2, accelerate): .metadata and .distcp shards",
     .caps = XD_CAP_CONCURRENT | XD_CAP_TIED_NAMES,
     .formats = kFormats,
     .options = kOptions}))

}  // namespace crossdock::writer_dcp
