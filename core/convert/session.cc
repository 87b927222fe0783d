// SPDX-License-Identifier: Apache-2.0
#include "core/convert/session.h"

#include <algorithm>

namespace crossdock::convert {

namespace {
thread_local plugin::NoteSink* captured = nullptr;
}  // namespace

Notes::Capture::Capture(plugin::NoteSink& out) { captured = &out; }
Notes::Capture::~Capture() { captured = nullptr; }

void Notes::add(std::string text) {
  if (captured) return captured->add(std::move(text));
  const std::lock_guard lock(mutex_);
  if (std::find(texts_.begin(), texts_.end(), text) == texts_.end())
    texts_.push_back(std::move(text));
}

void Notes::add(std::vector<std::string> texts) {
  for (std::string& text : texts) add(std::move(text));
}

std::vector<std::string> Notes::list() const {
  const std::lock_guard lock(mutex_);
  return texts_;
}

Session::Session(const Request& asked, const plugin::Registry& plugins, io::Os& os,
                 const std::atomic<bool>& cancel, const Callbacks& told)
    : request(asked),
      registry(plugins),
      cancelled(cancel),
      callbacks(told),
      activities(asked.trace),
      memory(asked.memory),
      host(os, memory, cancel) {
  host.log = [this](int32_t level, const std::string& message) {
    if (level >= XD_LOG_WARN) {
      notes.add(message);
    } else if (callbacks.log) {
      callbacks.log(level, message);
    }
  };
}

uint64_t Session::window_bytes() const {
  constexpr uint64_t kMin = 64 << 10, kMax = 4 << 20;
  return std::clamp(request.memory / (4 * request.threads) / kMin * kMin, kMin, kMax);
}

}  // namespace crossdock::convert
