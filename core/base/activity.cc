// SPDX-License-Identifier: Apache-2.0
#include "core/base/activity.h"

#include "core/base/json_writer.h"

#include <unistd.h>

#include <utility>

namespace crossdock::base {

namespace {

// More than that would be no picture any more, and take gigabytes.
constexpr size_t kMaxEvents = 1'000'000;

// What this thread is at. Its times are handed in when it stops counting, so that a span takes no
// lock.
struct Here {
  Activities* activities = nullptr;
  Activity activity = Activity::kTransform;
  Activities::Clock::time_point since{};
  std::array<Activities::Clock::duration, kActivities> times{};

  void switch_to(Activity next) {
    const auto now = Activities::Clock::now();
    times[static_cast<size_t>(activity)] += now - since;
    activity = next;
    since = now;
  }
};
thread_local Here here;

}  // namespace

Activities::OnThread::OnThread(Activities& activities, std::string name, Activity activity)
    : activities_(activities), name_(std::move(name)) {
  here = {&activities, activity, start_, {}};
}

Activities::OnThread::~OnThread() {
  here.switch_to(here.activity);
  for (size_t i = 0; i < kActivities; ++i) activities_.add(static_cast<Activity>(i), here.times[i]);
  const auto length = here.since - start_;
  here.activities = nullptr;
  if (!activities_.with_trace_) return;
  const std::lock_guard lock(activities_.mutex_);
  if (activities_.events_.size() < kMaxEvents)
    activities_.events_.push_back({name_, start_, length, ::gettid()});
}

void Activities::add(Activity activity, Clock::duration time) {
  const std::lock_guard lock(mutex_);
  times_[static_cast<size_t>(activity)] += time;
}

std::array<double, kActivities> Activities::seconds() const {
  const std::lock_guard lock(mutex_);
  std::array<double, kActivities> out{};
  for (size_t i = 0; i < kActivities; ++i)
    out[i] = std::chrono::duration<double>(times_[i]).count();
  return out;
}

std::string Activities::trace_json() const {
  const std::lock_guard lock(mutex_);
  const auto microseconds = [](Clock::duration time) {
    return std::chrono::duration<double, std::micro>(time).count();
  };
  JsonWriter json;
  json.begin_object().key("traceEvents").begin_array();
  for (const Event& event : events_) {
    json.begin_object().member("name", event.name).member("ph", "X").member("pid", 1);
    json.member("tid", event.thread).member("ts", microseconds(event.start - start_));
    json.member("dur", microseconds(event.length)).end_object();
  }
  json.end_array().end_object();
  return std::move(json).take();
}

Span::Span(Activity activity) {
  if (!here.activities) return;
  outer_ = here.activity;
  here.switch_to(activity);
}

Span::~Span() {
  if (here.activities) here.switch_to(outer_);
}

}  // namespace crossdock::base
