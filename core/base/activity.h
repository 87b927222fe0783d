// SPDX-License-Identifier: Apache-2.0

// Where the time of a run goes: each thread is at one activity at a time, and the seconds of each
// are added up over all threads. With a trace, what happened when is kept too.
//
//   Activities activities(/*with_trace=*/false);
//   const Activities::OnThread here(activities, "item 3");     // this thread counts from now on
//   { const Span span(Activity::kRead);  read(...); }          // nested ones count by themselves
//
// A span on a thread that does not count costs nothing. Threads: any.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

namespace crossdock::base {

enum class Activity { kRead, kTransform, kDigest, kWrite, kWait, kSync };
inline constexpr size_t kActivities = 6;
inline constexpr std::array<const char*, kActivities> kActivityNames{
    "read", "transform", "digest", "write", "wait for budget", "sync"};

class Activities {
 public:
  using Clock = std::chrono::steady_clock;

  explicit Activities(bool with_trace = false) : with_trace_(with_trace) {}
  Activities(const Activities&) = delete;
  Activities& operator=(const Activities&) = delete;

  // While it lives, the thread's time counts, as a transform where no span says something else.
  class OnThread {
   public:
    OnThread(Activities& activities, std::string name, Activity activity = Activity::kTransform);
    ~OnThread();
    OnThread(const OnThread&) = delete;
    OnThread& operator=(const OnThread&) = delete;

   private:
    Activities& activities_;
    const std::string name_;
    const Clock::time_point start_ = Clock::now();
  };

  // Over all threads.
  std::array<double, kActivities> seconds() const;
  // For chrome://tracing and ui.perfetto.dev: what OnThread named, by threads, as JSON.
  std::string trace_json() const;

 private:
  friend class Span;
  struct Event {
    std::string name;
    Clock::time_point start;
    Clock::duration length;
    int64_t thread;
  };
  void add(Activity activity, Clock::duration time);

  const bool with_trace_;
  const Clock::time_point start_ = Clock::now();
  mutable std::mutex mutex_;
  std::array<Clock::duration, kActivities> times_{};
  std::vector<Event> events_;
};

class Span {
 public:
  explicit Span(Activity activity);
  ~Span();
  Span(const Span&) = delete;
  Span& operator=(const Span&) = delete;

 private:
  Activity outer_{};
};

}  // namespace crossdock::base
