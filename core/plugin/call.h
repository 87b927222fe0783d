// SPDX-License-Identifier: Apache-2.0

// One call of a plugin's function, from the host's side: what its xd_call* is.
#pragma once

#include <crossdock/plugin.h>
#include <crossdock/result.hpp>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace crossdock::plugin {

class Host;

// The tensors that an item of work may read: convert/tensor_service.h.
class TensorReads {
 public:
  virtual ~TensorReads() = default;
  // Dense values of a range in the wanted type. [any]
  virtual Result<void> read(const xd_range& range, std::span<std::byte> out) = 0;
};

// What plugins say to the user while one item of work is done. [any]
class NoteSink {
 public:
  void add(std::string text) {
    const std::lock_guard lock(mutex_);
    if (texts_.size() < kMax) texts_.push_back(std::move(text));
  }
  std::vector<std::string> take() {
    const std::lock_guard lock(mutex_);
    return std::move(texts_);
  }

 private:
  static constexpr size_t kMax = 1000;  // a plugin that warns of each element must not fill memory
  std::mutex mutex_;
  std::vector<std::string> texts_;
};

// Which function of which plugin is called, and what it may do.
struct CallSpec {
  const char* plugin;              // its id
  const char* function;            // "write_item"
  const void* instance = nullptr;  // stands for the reader or writer, which owns what it allocates
  bool frees_all = false;          // what it allocates is its own, and ends with it
  uint64_t memory = UINT64_MAX;    // that it may hold of alloc()
  TensorReads* tensors = nullptr;
  NoteSink* notes = nullptr;  // takes its warnings; nullptr: the host's log does
};

// The error with whose it is behind it, once: "... [org.example.reader.raw: open]".
Error named(Error error, const CallSpec& spec);

// One call that runs. [any]
struct Call : xd_call {
  Call(const xd_host* table, Host& of, const CallSpec& what)
      : xd_call{XD_INIT_SIZE(xd_call), 0, table}, host(of), spec(what) {}

  // Keeps an error, in front of which fail() puts places.
  xd_status keep(Error e) {
    const std::lock_guard lock(mutex);
    const xd_status code = e.code;
    error = std::move(e);
    return code;
  }
  // The plugin broke a promise: the call fails whatever it returns.
  void blame(std::string text) {
    const std::lock_guard lock(mutex);
    if (!broken) broken = Error{XD_INTERNAL, std::move(text)};
  }
  const void* owner() const { return spec.frees_all ? this : spec.instance; }

  Host& host;
  const CallSpec& spec;
  std::mutex mutex;  // of all below: a plugin's own threads may use the call
  std::optional<Error> error, broken;
  uint64_t held = 0;        // bytes of alloc()
  bool has_failed = false;  // the plugin called fail()
};

// As much of a plugin's struct as it and we both know; the rest stays as it is. False: it ends
// before its first `least` bytes, those that every version has.
template <class T>
bool copy_known(const T* from, T& to, size_t least = sizeof(T)) {
  if (!from || from->struct_size < least) return false;
  std::memcpy(&to, from, std::min<size_t>(from->struct_size, sizeof(T)));
  to.struct_size = sizeof(T);
  return true;
}

}  // namespace crossdock::plugin
