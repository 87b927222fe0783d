// SPDX-License-Identifier: Apache-2.0
#include "core/convert/open_writer.h"

#include <utility>
#include <vector>

namespace crossdock::convert {

Result<OpenWriter> OpenWriter::open(plugin::Host& host, const plugin::Plugin& plugin,
                                    const std::string& manifest,
                                    const plugin::CheckedOptions& options) {
  OpenWriter out(host, plugin);
  const xd_writer_open args{XD_INIT_SIZE(xd_writer_open), 0, manifest.data(), manifest.size(),
                            options.table()};
  const auto spec = out.spec("open");
  XD_TRY(host.call(spec, [&](xd_call* c) { return plugin.writer.open(c, &args, &out.handle_); }));
  if (!out.handle_)
    return plugin::named({XD_INTERNAL, "it said that it opened, and gave nothing"}, spec);
  return out;
}

OpenWriter::OpenWriter(OpenWriter&& other) noexcept
    : host_(other.host_),
      plugin_(other.plugin_),
      handle_(std::exchange(other.handle_, nullptr)),
      serial_(std::move(other.serial_)) {}

OpenWriter::~OpenWriter() {
  if (!handle_) return;
  (void)host_->call(spec("close"),
                    [&](xd_call* c) { return plugin_->writer.close(c, handle_), XD_OK; });
  host_->memory().dealloc_all(serial_.get());
}

// Holds nothing for a writer that says that it can be called from several threads.
std::unique_lock<std::mutex> OpenWriter::serialise() const {
  std::unique_lock lock(*serial_, std::defer_lock);
  if (!plugin_->concurrent()) lock.lock();
  return lock;
}

Result<plugin::Plan> OpenWriter::plan(size_t n_tensors) const {
  xd_plan plan;
  plan.n_tensors = n_tensors;
  XD_TRY(host_->call(spec("plan"),
                     [&](xd_call* c) { return plugin_->writer.plan(c, handle_, &plan); }));
  return std::move(plan.plan);
}

Result<void> OpenWriter::write_item(const plugin::PlanItem& item, const std::string& path,
                                    TensorService::Item& tensors, xd_object& object,
                                    xd_bytes& result) const {
  const auto lock = serialise();
  plugin::CallSpec call = spec("write_item");
  call.frees_all = true;
  call.memory = item.memory;
  call.tensors = &tensors;
  call.notes = &tensors.notes();
  const xd_item args{XD_INIT_SIZE(xd_item), item.object, item.number, &object, &result};
  auto written =
      host_->call(call, [&](xd_call* c) { return plugin_->writer.write_item(c, handle_, &args); });
  if (!written) return std::move(written).error().in(path);
  if (auto whole = tensors.check_whole(); !whole)
    return plugin::named(std::move(whole).error().in(path), call);
  return {};
}

Result<void> OpenWriter::seal(uint32_t index, const std::string& path, xd_object& object,
                              std::span<const xd_bytes> results, plugin::NoteSink& notes) const {
  std::vector<xd_view> views;
  for (const xd_bytes& result : results)
    views.push_back({XD_INIT_SIZE(xd_view), XD_MEMORY_CPU, result.data.data(), result.data.size()});
  std::vector<const xd_view*> list;
  for (const xd_view& view : views) list.push_back(&view);
  list.push_back(nullptr);
  const auto lock = serialise();
  plugin::CallSpec call = spec("seal");
  call.frees_all = true;
  call.notes = &notes;
  const xd_seal args{XD_INIT_SIZE(xd_seal), index, &object, list.data()};
  auto sealed =
      host_->call(call, [&](xd_call* c) { return plugin_->writer.seal(c, handle_, &args); });
  if (!sealed) return std::move(sealed).error().in(path);
  return {};
}

Result<void> OpenWriter::commit() const {
  return host_->call(spec("commit"),
                     [&](xd_call* c) { return plugin_->writer.commit(c, handle_); });
}

}  // namespace crossdock::convert
