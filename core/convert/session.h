// SPDX-License-Identifier: Apache-2.0

// What belongs to a whole run and to none of its stages: the budget, the plugins' host, the notes
// for the user.
#pragma once

#include "core/base/activity.h"
#include "core/base/memory.h"
#include "core/convert/request.h"
#include "core/io/paths.h"
#include "core/plugin/host.h"
#include "core/plugin/registry.h"
#include "core/report/report.h"
#include "core/rules/rule_set.h"

#include <atomic>
#include <functional>
#include <mutex>
#include <string>
#include <vector>

namespace crossdock::convert {

// Sentences for the user, each once, in the order in which they came. Thread-safe: plugins warn
// from any thread.
class Notes {
 public:
  void add(std::string text);
  void add(std::vector<std::string> texts);
  std::vector<std::string> list() const;

  // While it lives, what this thread adds goes to `out` alone: what belongs to one file.
  class Capture {
   public:
    explicit Capture(plugin::NoteSink& out);
    ~Capture();
    Capture(const Capture&) = delete;
    Capture& operator=(const Capture&) = delete;
  };

 private:
  mutable std::mutex mutex_;
  std::vector<std::string> texts_;
};

struct Forecast;
struct Prepared;
struct Planned;
struct Session;

// All of a conversion is written, and not yet where the user looks for it.
struct Unpublished {
  Session& session;
  const Prepared& prepared;
  const Planned& planned;
  const report::Report& report;
  const io::fs::path& folder;
};

struct Written {
  std::string path;           // of the file
  uint64_t item = 0, of = 0;  // the item's number among the file's; none: the file is finished
  uint64_t bytes = 0;
};

// What the caller of a conversion is told while it runs. All may be empty.
struct Callbacks {
  std::function<void(const Forecast&)> planned;  // before the first file
  // Bytes of output, about five times a second, on the calling thread; `before` of `done` were
  // there when this run began.
  std::function<void(uint64_t done, uint64_t total, uint64_t before)> progress;
  std::function<void(const char* phase)> phase;  // "write", "digest", "sync", on the calling thread
  // An item or a file is written. [any]
  std::function<void(const Written&)> written;
  std::function<void(int32_t level, const std::string&)>
      log;                          // below warnings, which are notes [any]
  std::function<void()> published;  // DST is there now, on the calling thread
  // A last check, on the calling thread: after an error nothing is published.
  std::function<Result<void>(const Unpublished&)> check;
};

// Outlives everything that the stages make, for plugins hold the host's table. `registry`, `os` and
// `cancelled` outlive it.
struct Session {
  Session(const Request& request, const plugin::Registry& registry, io::Os& os,
          const std::atomic<bool>& cancelled, const Callbacks& callbacks = {});
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // The bytes of one read ahead of a cast: as large as the budget lets every thread have, up to
  // what disks like.
  uint64_t window_bytes() const;

  const Request& request;
  const plugin::Registry& registry;
  const std::atomic<bool>& cancelled;
  const Callbacks callbacks;
  base::Activities activities;
  base::Memory memory;
  plugin::Host host;
  rules::RuleSet rules;  // set by prepare()
  Notes notes;           // the writer's, and warnings of either plugin, among them
};

}  // namespace crossdock::convert
