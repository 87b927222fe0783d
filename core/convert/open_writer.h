// SPDX-License-Identifier: Apache-2.0

// A writer plugin that has been given a model, closed with the object. Its calls are serialised
// where the plugin does not say XD_CAP_CONCURRENT, and errors name the object.
#pragma once

#include "core/convert/tensor_service.h"
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
  // For what is said of one of its functions.
  plugin::CallSpec spec(const char* function) const {
    return {.plugin = plugin_->desc.id, .function = function, .instance = serial_.get()};
  }

  Result<plugin::Plan> plan(size_t n_tensors) const;
  // `tensors`: what it may read, all of which it must. `result`: what seal() is given of it. [any]
  Result<void> write_item(const plugin::PlanItem& item, const std::string& path,
                          TensorService::Item& tensors, xd_object& object, xd_bytes& result) const;
  // `results`: those of the object's items, by their numbers. [any]
  Result<void> seal(uint32_t index, const std::string& path, xd_object& object,
                    std::span<const xd_bytes> results, plugin::NoteSink& notes) const;
  Result<void> commit() const;

 private:
  OpenWriter(plugin::Host& host, const plugin::Plugin& plugin) : host_(&host), plugin_(&plugin) {}
  std::unique_lock<std::mutex> serialise() const;

  plugin::Host* host_;
  const plugin::Plugin* plugin_;
  xd_writer* handle_ = nullptr;
  std::unique_ptr<std::mutex> serial_ = std::make_unique<std::mutex>();
};

}  // namespace crossdock::convert
