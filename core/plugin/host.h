// SPDX-License-Identifier: Apache-2.0

// The host's side of plugin.h: one table of functions per job, and the things behind its opaque
// handles.
//
// The table's functions run on plugin threads and let no exception out; what a plugin hands them is
// checked. A plugin's message and the places in front of it meet in its Call (call.h).
#pragma once

#include "core/base/memory.h"
#include "core/io/input.h"
#include "core/io/staging.h"
#include "core/plugin/call.h"
#include "core/plugin/plan.h"

#include <crossdock/extensions.h>
#include <crossdock/plugin.h>
#include <crossdock/result.hpp>

#include <atomic>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <unordered_map>

// The C handles. They live at global scope, where plugin.h declares them.
struct xd_bytes {
  std::string data;
  uint64_t limit = XD_MAX_RESULT_BYTES;
};
struct xd_input {
  const crossdock::io::Input* input;
};
struct xd_source {
  const crossdock::io::Input* input;
  const crossdock::io::InputEntry* entry;
};
struct xd_object {
  crossdock::io::StagedObject* staged;
  std::vector<crossdock::io::ByteRange>* written = nullptr;  // what one item writes, if it is asked
  bool is_sealing = false;
};
struct xd_plan {
  crossdock::plugin::Plan plan;
  size_t n_tensors = 0;
};

namespace crossdock::plugin {

// What a job shares with its plugins. Threads: the hooks and counters may be used from any once the
// job runs.
class Host {
 public:
  Host(io::Os& os, base::Memory& memory, const std::atomic<bool>& cancelled);
  Host(const Host&) = delete;
  Host& operator=(const Host&) = delete;

  const xd_host* table() const { return &table_; }
  io::Os& os() { return os_; }
  base::Memory& memory() { return memory_; }
  bool cancelled() const { return cancelled_; }
  uint64_t done_bytes() const { return done_bytes_; }
  void add_done(uint64_t n) { done_bytes_ += n; }
  void set_piece_bytes(uint64_t n) { piece_bytes_ = n; }
  uint64_t piece_bytes() const { return piece_bytes_; }

  // As C starts a program: to nearest, subnormal numbers kept. A plugin, or a library that it was
  // linked with (-ffast-math), may have left another, and then our own arithmetic would be wrong.
  static void restore_arithmetic();

  // Calls a plugin's function and turns its status and message, or what it throws, into a Result
  // that names the plugin and the function. [any]
  Result<void> call(const CallSpec& spec, const std::function<xd_status(xd_call*)>& function);

  // A checkpoint may be more files than a process may have open: those that were read last are, and
  // the others are opened again when they are read.
  static constexpr size_t kMaxOpenFiles = 512;

  // Any thread. The input outlives the host's use of the source.
  Result<xd_source*> open_source(const xd_input& input, const std::string& name);
  Result<void> read_source(const xd_source& source, uint64_t offset, std::span<std::byte> out);
  // Reads that may wait for the disk together.
  struct SourceRead {
    const xd_source& source;
    uint64_t offset;
    std::span<std::byte> out;
  };
  Result<void> read_sources(std::span<const SourceRead> reads);
  // The names of an input's files that were opened since forget_opened().
  std::vector<std::string> opened(const io::Input& input) const;
  void forget_opened();
  // The first error of the system in reading a source. A plugin's probe that cannot read a file
  // only takes it for none of its own; who must know that all was read asks here.
  std::optional<Error> failed_read() const;

  // What was read of a source; set by whoever takes its digest. [any]
  std::function<void(const io::InputEntry&, uint64_t offset, std::span<const std::byte>)>
      source_seen;
  // Messages of plugins; set by whoever wants to show them. [any]
  std::function<void(int32_t level, const std::string&)> log;

 private:
  friend struct HostCalls;
  io::Os& os_;
  base::Memory& memory_;
  const std::atomic<bool>& cancelled_;
  std::atomic<uint64_t> done_bytes_{0};
  uint64_t piece_bytes_ = 1 << 20;
  xd_host table_;
  // Whoever reads from a file that is being closed keeps it open until then.
  struct OpenFile {
    const io::InputEntry* entry;
    std::shared_ptr<const io::Fd> fd;
  };
  Result<std::shared_ptr<const io::Fd>> descriptor_of(const xd_source& source);
  Result<void> read_unseen(const SourceRead& read);

  mutable std::mutex mutex_;
  std::map<const io::InputEntry*, xd_source> sources_;  // a map: handles stay where they are
  std::set<const io::InputEntry*> opened_;
  std::optional<Error> failed_read_;
  Error noticed(Error error);
  std::list<OpenFile> open_files_;  // the one that was read last is the first
  std::unordered_map<const io::InputEntry*, std::list<OpenFile>::iterator> open_by_entry_;
};

}  // namespace crossdock::plugin
