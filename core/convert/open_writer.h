// A writer plugin that has been given a model, closed with the object. Its calls are serialised
// where the plugin does not say XD_CAP_CONCURRENT, and errors name the object.
#pragma once

#include "core/plugin/host.h"
#include "core/plugin/options.h"
#include "core/plugin/registry.h"

#include <crossdock/manifest_wire.hpp>

#include <memory>
#include <mutex>
#include <span>
#include <string>

namespace crossdock::convert {

class OpenWriter {
 public:
  // `manifest`: wire bytes. `host` and `plugin` outlive the writer.
  static Result<OpenWriter> open(plugin::Host& host, const plugin::Plugin& plugin,
                                 const std::string& manifest,
                                 const plugin::CheckedOptions& options);
  OpenWriter(OpenWriter&& other) noexcept;
  OpenWriter& operator=(OpenWriter&&) = delete;
  ~OpenWriter();

  const plugin::Plugin& plugin() const { return *plugin_; }

  Result<plugin::Plan> plan(size_t n_tensors) const;
  // `result`: what seal() is given of the item. [any]
  Result<void> write_item(const plugin::PlanItem& item, const std::string& path, xd_object& object,
                          xd_bytes& result) const;
  // `results`: those of the object's items, by their numbers. [any]
  Result<void> seal(uint32_t index, const std::string& path, xd_object& object,
                    std::span<const xd_bytes> results) const;
  Result<void> commit() const;

 private:
  OpenWriter(plugin::Host& host, const plugin::Plugin& plugin, xd_writer* handle)
      : host_(&host), plugin_(&plugin), handle_(handle) {}
  std::unique_lock<std::mutex> serialise() const;

  plugin::Host* host_;
  const plugin::Plugin* plugin_;
  xd_writer* handle_;
  std::unique_ptr<std::mutex> serial_ = std::make_unique<std::mutex>();
};

}  // namespace crossdock::convert
