#include "core/convert/open_writer.h"

#include <utility>
#include <vector>

namespace crossdock::convert {

Result<OpenWriter> OpenWriter::open(plugin::Host& host, const plugin::Plugin& plugin,
                                    const std::string& manifest,
                                    const plugin::CheckedOptions& options) {
  xd_writer* handle = nullptr;
  XD_TRY(host.call([&](xd_error* err) {
    return plugin.writer.open(host.table(), manifest.data(), manifest.size(), options.table(),
                              &handle, err);
  }));
  return OpenWriter(host, plugin, handle);
}

OpenWriter::OpenWriter(OpenWriter&& other) noexcept
    : host_(other.host_),
      plugin_(other.plugin_),
      handle_(std::exchange(other.handle_, nullptr)),
      serial_(std::move(other.serial_)) {}

OpenWriter::~OpenWriter() {
  if (handle_) plugin_->writer.close(handle_);
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
  XD_TRY(host_->call([&](xd_error* err) { return plugin_->writer.plan(handle_, &plan, err); }));
  return std::move(plan.plan);
}

Result<void> OpenWriter::write_item(const plugin::PlanItem& item, const std::string& path,
                                    xd_object& object, xd_bytes& result) const {
  const auto lock = serialise();
  auto written = host_->call([&](xd_error* err) {
    return plugin_->writer.write_item(handle_, item.object, item.number, &object, &result, err);
  });
  if (!written) return std::move(written).error().in(path);
  return {};
}

Result<void> OpenWriter::seal(uint32_t index, const std::string& path, xd_object& object,
                              std::span<const xd_bytes> results) const {
  std::vector<xd_view> views;
  for (const xd_bytes& result : results)
    views.push_back(
        {XD_INIT_SIZE(xd_view), 0, result.data.data(), result.data.size(), nullptr, nullptr});
  std::vector<const xd_view*> list;
  for (const xd_view& view : views) list.push_back(&view);
  list.push_back(nullptr);
  const auto lock = serialise();
  auto sealed = host_->call([&](xd_error* err) {
    return plugin_->writer.seal(handle_, index, &object, list.data(), err);
  });
  if (!sealed) return std::move(sealed).error().in(path);
  return {};
}

Result<void> OpenWriter::commit() const {
  return host_->call([&](xd_error* err) { return plugin_->writer.commit(handle_, err); });
}

}  // namespace crossdock::convert
