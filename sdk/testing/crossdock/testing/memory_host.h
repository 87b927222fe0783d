// SPDX-License-Identifier: Apache-2.0

// An xd_host in memory, and two drivers that run a plugin against it: what the unit tests of
// plugins stand on.
//
// It keeps inputs, plans and outputs in plain containers that a test reads and writes, and is
// stricter than the real host: it refuses bytes written twice, ranges outside the item's declared
// needs, more memory than the item declared, memory that is not given back, and failures without a
// message.
//
//   test::MemoryHost host;
//   host.inputs["model.safetensors"] = bytes;
//   auto reader = test::run_reader(host, test::linked_plugin(host));
//   (*reader)->manifest; *(*reader)->read(0);    // a whole tensor, dense
//
//   host.tensors = {weight_bytes};               // dense bytes, by index in the manifest
//   auto written = test::run_writer(host, desc, manifest, {{"tag", "x"}});  // path -> bytes
//
// Every call of the host may come from any thread; the public members are the test's, set before
// and read after a run.
#pragma once

#include <crossdock/plugin.h>
#include <crossdock/manifest_wire.hpp>
#include <crossdock/plugin.hpp>

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace crossdock::test {

using OptionValues =
    std::vector<std::pair<std::string, std::string>>;  // a list option: one entry per value

struct PlanItem {
  std::vector<xd_range> needs;
  uint64_t out_bytes = 0;
  uint64_t memory = 0;
};

// One planned output object and the bytes that it got.
struct PlanObject {
  std::string path;
  uint64_t size = 0;  // or at most, with XD_OBJECT_SIZE_AT_SEAL
  uint32_t flags = 0;
  std::vector<PlanItem> items;
  std::string data;                      // made at the first write
  std::map<uint64_t, uint64_t> written;  // begin -> end, disjoint, touching ranges joined
  uint64_t hole_bytes = 0;               // of object_zero

  uint64_t end() const { return written.empty() ? 0 : written.rbegin()->second; }
  bool complete() const {
    const uint64_t wanted = flags & XD_OBJECT_SIZE_AT_SEAL ? end() : size;
    return wanted == 0 || (written.size() == 1 && written.begin()->first == 0 && end() == wanted);
  }
};

struct Plan {
  std::vector<std::unique_ptr<PlanObject>> objects;
  std::vector<std::pair<std::string, uint64_t>> aux;       // path, index in the manifest
  std::vector<std::pair<uint64_t, std::string>> excluded;  // tensor, reason
  std::vector<std::string> notes;
};

class MemoryHost {
 public:
  MemoryHost();
  MemoryHost(const MemoryHost&) = delete;
  ~MemoryHost();  // aborts when a plugin kept memory

  // ---- what the test sets
  std::map<std::string, std::string> inputs;
  std::map<std::string, uint64_t>
      input_sizes;    // names here are this long: cut off, or with zeros behind their bytes
  std::string named;  // the input that SRC names; empty: SRC is a folder
  manifest::Manifest manifest;       // the writer's model; run_writer sets it
  std::vector<std::string> tensors;  // dense bytes by index in the manifest; or:
  std::function<void(uint64_t tensor, uint64_t first_byte, std::span<std::byte> out)> tensor_bytes;
  bool offer_extensions = true;  // those of extensions.h
  bool cancel = false;
  uint64_t cancel_at = 0;  // from the nth call that can fail on, cancelled() says so; 0: never
  uint64_t piece = 4 << 20;
  uint64_t budget = UINT64_MAX;  // of alloc
  uint64_t fail_at = 0;  // the nth call that can fail does: XD_IO, or NULL from alloc; 0: never
  // Of run_writer: its threads, the last item first, and each item a second time, into an object
  // that is thrown away. Items in order are neither reversed nor repeated.
  unsigned threads = 1;
  bool backwards = false;
  bool repeats_items = false;
  std::function<void()> before_items;  // after plan()

  // ---- what the test reads
  uint64_t calls = 0;  // that could have failed
  std::vector<std::pair<int32_t, std::string>> logs;
  uint64_t progress_bytes = 0;
  uint64_t allocated = 0, peak_allocated = 0;
  uint64_t reads = 0, bytes_read = 0;      // of sources
  std::map<std::string, uint64_t> opened;  // how often each input was
  Plan plan;

  const xd_input* input() const { return reinterpret_cast<const xd_input*>(this); }

  // One call of a plugin: its xd_call. The host outlives it.
  class Call : public xd_call {
   public:
    // `item`: that it may read the needs of, and whose memory it may hold; nullptr: any.
    explicit Call(MemoryHost& of, const PlanItem* item_ = nullptr, bool is_sealing_ = false)
        : xd_call{XD_INIT_SIZE(xd_call), 0, &of.table_},
          host(of),
          item(item_),
          is_sealing(is_sealing_) {}
    Host api() { return Host(this); }
    // The whole error: what a failed host call left, with the places in front.
    std::string text(const Error& e) const {
      return e.held_by_host ? cat(e.message, e.message.empty() ? "" : ": ", message) : e.message;
    }
    // The memory that it was to give back, and held at most.
    Result<void> check_memory(std::string_view path, uint64_t number) const;

    MemoryHost& host;
    const PlanItem* const item;
    const bool is_sealing;
    std::string message;
    bool has_failed = false;     // the plugin called fail()
    int64_t held = 0, peak = 0;  // bytes of alloc
    std::vector<std::pair<uint64_t, std::pair<uint64_t, uint64_t>>> read;  // tensor, begin, end
  };

  // Of a call of its own, for code below the plugin's entry points.
  Host api() { return own_.api(); }
  std::string text(const Error& e) const { return own_.text(e); }
  bool logged(std::string_view part) const;

 private:
  friend struct Calls;
  struct OpenSource {
    MemoryHost* host;
    std::string name;
  };
  bool fault();  // counts a call; true: this one shall fail

  std::mutex mutex_;
  xd_host table_;
  Call own_{*this};
  std::map<void*, uint64_t> blocks_;
  std::vector<std::unique_ptr<OpenSource>> sources_;
};

// The first plugin of the module that is linked into the test.
inline const xd_plugin_desc& linked_plugin(MemoryHost& host) {
  const xd_library* module = nullptr;
  MemoryHost::Call call(host);
  if (xd_plugin_v1(&call, &module) != XD_OK) throw std::runtime_error("xd_plugin_v1 failed");
  return *module->plugins[0];
}

// An opened reader; closes itself. The host must outlive it.
class OpenReader {
 public:
  OpenReader(MemoryHost& host, const xd_plugin_desc& plugin, xd_reader* reader)
      : host_(host), plugin_(plugin), reader_(reader) {}
  OpenReader(const OpenReader&) = delete;
  ~OpenReader();

  manifest::Manifest manifest;
  std::string manifest_bytes;

  // Any range, checked by the plugin alone.
  Result<std::string> read(const xd_range& range, uint64_t dst_size) const;
  // A whole tensor, dense.
  Result<std::string> read(uint64_t tensor) const;
  // What it says of reading a tensor (extensions.h).
  Result<ReadHint> hint(uint64_t tensor) const;

 private:
  MemoryHost& host_;
  const xd_plugin_desc& plugin_;
  xd_reader* reader_;
};

int probe(MemoryHost& host, const xd_plugin_desc& plugin);
// Of a folder with (empty) files of these names, by the plugin that is linked into the test.
inline int probe_names(const std::vector<std::string>& names) {
  MemoryHost host;
  for (const std::string& name : names) host.inputs[name] = "";
  return probe(host, linked_plugin(host));
}
// Of a file with these bytes that the user named.
inline int probe_file(const std::string& name, const std::string& bytes) {
  MemoryHost host;
  host.inputs[name] = bytes;
  host.named = name;
  return probe(host, linked_plugin(host));
}
Result<std::unique_ptr<OpenReader>> run_reader(MemoryHost& host, const xd_plugin_desc& plugin,
                                               const OptionValues& options = {});

// open, plan, every item, seal, commit, close. Gives path -> bytes, auxiliary files included; the
// rest is in host.plan. Memory or views that are still held after it are the error.
using Files = std::map<std::string, std::string>;
Result<Files> run_writer(MemoryHost& host, const xd_plugin_desc& plugin,
                         const manifest::Manifest& manifest, const OptionValues& options = {});
// open, plan, close: the plan is in host.plan.
Result<void> run_plan(MemoryHost& host, const xd_plugin_desc& plugin,
                      const manifest::Manifest& manifest, const OptionValues& options = {});

}  // namespace crossdock::test
