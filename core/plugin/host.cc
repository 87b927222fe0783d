// SPDX-License-Identifier: Apache-2.0
#include "core/plugin/host.h"

#include "core/base/activity.h"
#include "core/plugin/active_calls.h"
#include "core/plugin/host_calls.h"

#include <cxxabi.h>
#if defined(__SSE__)
#include <xmmintrin.h>
#endif

#include <cfenv>

#include <system_error>
#include <thread>

namespace crossdock::plugin {

Error named(Error error, const CallSpec& spec) {
  // What a nested call failed with says so already.
  if (error.names_plugin || error.code == XD_CANCELLED) return error;
  error.message += cat(" [", spec.plugin, ": ", spec.function, ']');
  error.names_plugin = true;
  return error;
}

namespace {

// What it threw, as text; nothing was thrown when it is empty.
std::string run_shielded(const std::function<xd_status(xd_call*)>& function, xd_call* call,
                         xd_status& status) {
  try {
    status = function(call);
    return {};
  } catch (const abi::__forced_unwind&) {
    throw;  // the thread ends, which cannot be stopped
  } catch (const std::exception& e) {
    return cat("it threw an exception, which must not leave a plugin: ", e.what());
  } catch (...) {
    return "it threw something that is no exception, which must not leave a plugin";
  }
}

}  // namespace

Host::Host(io::Os& os, base::Memory& memory, const std::atomic<bool>& cancelled)
    : os_(os), memory_(memory), cancelled_(cancelled), table_(host_table()) {}

void Host::restore_arithmetic() {
  std::fesetenv(FE_DFL_ENV);
#if defined(__SSE__)
  constexpr unsigned kDefault = 0x1f80;  // all exceptions masked, to nearest, no flush to zero
  _mm_setcsr(kDefault);
#endif
}

namespace {

// Whether a failure on the way spoils what was made: of values and files any does. Elsewhere a
// plugin may look for a file that is not there, but not fail and say that all is well.
std::optional<Error> contradiction(const Call& call) {
  const std::string_view function = call.spec.function;
  const bool makes_bytes = function == "read" || function == "write_item" || function == "seal";
  if (!call.error || (!call.has_failed && !makes_bytes)) return std::nullopt;
  return Error{XD_INTERNAL,
               cat("it said that all was well after a failure: ", call.error->message)};
}

}  // namespace

Result<void> Host::call(const CallSpec& spec, const std::function<xd_status(xd_call*)>& function) {
  constexpr int kMaxDepth = 8;  // a writer's call that reads through a reader's is two
  if (ActiveCall::depth() >= kMaxDepth)
    return named({XD_INTERNAL, "expected calls that end, found ones within ones"}, spec);
  give_signal_stack();
  Call call(&table_, *this, spec);
  xd_status status = XD_INTERNAL;
  std::string thrown;
  {
    const ActiveCall active(spec.plugin, spec.function);
    thrown = run_shielded(function, &call, status);
  }
  restore_arithmetic();
  const size_t leaked = spec.frees_all && call.held > 0 ? memory_.dealloc_all(&call) : 0;
  if (leaked > 0 && log)
    log(XD_LOG_PLUGIN_BUG,
        named({XD_INTERNAL, cat("it did not give back ", leaked, " buffers")}, spec).message);
  if (!thrown.empty()) return named({XD_INTERNAL, std::move(thrown)}, spec);
  if (call.broken) return named(*std::move(call.broken), spec);
  if (status == XD_OK) {
    if (auto failed = contradiction(call)) return named(*std::move(failed), spec);
    return {};
  }
  if (status == XD_CANCELLED && !cancelled_)
    return named({XD_INTERNAL, "it gave XD_CANCELLED, and nobody has cancelled"}, spec);
  Error error = std::move(call.error).value_or(Error{});
  error.code = status;
  if (status < XD_OK || status > XD_INTERNAL) {
    error.code = XD_INTERNAL;
    error.message += cat(error.message.empty() ? "" : " ", "(status ", status, ", which is none)");
  } else if (error.message.empty()) {
    // A plugin that fails without a word is a plugin's bug; the user is told the number at least.
    error.message = status == XD_CANCELLED
                        ? "cancelled"
                        : cat("the plugin gave status ", status, " and no message");
  }
  return named(std::move(error), spec);
}

Result<xd_source*> Host::open_source(const xd_input& input, const std::string& name) {
  const io::InputEntry* entry = input.input->find(name);
  if (!entry)
    return Error{XD_NOT_FOUND,
                 cat("expected a file ", name, " in ", input.input->given(), ", found none")};
  // One handle for all: plugins keep it, and readers of many threads share it.
  xd_source* source = nullptr;
  {
    const std::lock_guard lock(mutex_);
    source = &sources_.emplace(entry, xd_source{input.input, entry}).first->second;
    opened_.insert(entry);
  }
  // So that what cannot be opened fails here.
  if (auto opened = descriptor_of(*source); !opened) return noticed(std::move(opened).error());
  return source;
}

Error Host::noticed(Error error) {
  const std::lock_guard lock(mutex_);
  if (!failed_read_ && (error.code == XD_IO || error.code == XD_NOT_FOUND)) failed_read_ = error;
  return error;
}

std::optional<Error> Host::failed_read() const {
  const std::lock_guard lock(mutex_);
  return failed_read_;
}

std::vector<std::string> Host::opened(const io::Input& input) const {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> out;
  for (const io::InputEntry* entry : opened_) {
    if (input.find(entry->name) == entry) out.push_back(entry->name);
  }
  return out;
}

void Host::forget_opened() {
  const std::lock_guard lock(mutex_);
  opened_.clear();
}

Result<void> Host::read_unseen(const SourceRead& read) {
  auto fd = descriptor_of(read.source);
  if (!fd) return noticed(std::move(fd).error());
  const base::Span span(base::Activity::kRead);
  auto done = io::read_exact(os_, (*fd)->get(), read.offset, read.out);
  if (!done) return noticed(std::move(done).error().in(read.source.entry->name));
  return {};
}

Result<void> Host::read_source(const xd_source& source, uint64_t offset, std::span<std::byte> out) {
  XD_TRY(read_unseen({source, offset, out}));
  if (source_seen) source_seen(*source.entry, offset, out);
  return {};
}

Result<void> Host::read_sources(std::span<const SourceRead> reads) {
  constexpr size_t kMaxThreads = 16;
  std::atomic<size_t> next = 0;
  std::mutex mutex;
  std::optional<Error> failed;
  const auto work = [&] {
    for (size_t i; (i = next++) < reads.size();) {
      auto done = read_unseen(reads[i]);
      if (done) continue;
      const std::lock_guard lock(mutex);
      if (!failed) failed = std::move(done).error();
      next = reads.size();
    }
  };
  {
    std::vector<std::jthread> helpers;
    try {
      while (helpers.size() + 1 < std::min(kMaxThreads, reads.size())) helpers.emplace_back(work);
    } catch (const std::system_error&) {
      // Fewer do it too.
    }
    work();
  }
  if (failed) return *std::move(failed);
  // On the caller's thread, to whose item of work the reads belong.
  for (const SourceRead& read : reads) {
    if (source_seen) source_seen(*read.source.entry, read.offset, read.out);
  }
  return {};
}

Result<std::shared_ptr<const io::Fd>> Host::descriptor_of(const xd_source& source) {
  const std::lock_guard lock(mutex_);
  if (const auto it = open_by_entry_.find(source.entry); it != open_by_entry_.end()) {
    open_files_.splice(open_files_.begin(), open_files_, it->second);
    return it->second->fd;
  }
  XD_TRY_SET(io::Fd fd, source.input->open(os_, *source.entry));
  open_files_.push_front({source.entry, std::make_shared<const io::Fd>(std::move(fd))});
  open_by_entry_[source.entry] = open_files_.begin();
  if (open_files_.size() > kMaxOpenFiles) {
    open_by_entry_.erase(open_files_.back().entry);
    open_files_.pop_back();
  }
  return open_files_.front().fd;
}

}  // namespace crossdock::plugin
