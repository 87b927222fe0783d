// SPDX-License-Identifier: Apache-2.0
#include "apps/crossdock/progress.h"

#include "apps/crossdock/log.h"
#include "apps/crossdock/verbs.h"
#include "core/base/json_writer.h"
#include "core/base/text.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <string_view>
#include <utility>

namespace crossdock::app {

namespace {
constexpr auto kPlainInterval = std::chrono::seconds(5);
constexpr size_t kBarCells = 30;
// One object on one line.
template <class Members>
void say_json(Members members) {
  base::JsonWriter json;
  json.begin_object();
  members(json);
  json.end_object();
  // The writer's line ends and indents are its own: those of a text are escaped.
  const std::string text = std::move(json).take();
  std::string line;
  for (size_t at = 0; at < text.size(); ++at) {
    if (text[at] != '\n') {
      line += text[at];
      continue;
    }
    if (line.ends_with(',')) line += ' ';
    at = std::min(text.find_first_not_of(' ', at + 1), text.size()) - 1;
  }
  say(line + "\n");
}

}  // namespace

Progress::Style Progress::style_of(const std::string& word) {
  if (word == "auto") return isatty(STDERR_FILENO) ? Style::kBar : Style::kPlain;
  return word == "bar"     ? Style::kBar
         : word == "plain" ? Style::kPlain
         : word == "json"  ? Style::kJson
                           : Style::kNone;
}

void Progress::update(uint64_t done, uint64_t total, uint64_t before) {
  const auto now = Clock::now();
  const double seconds = this->seconds();
  // What is left takes as long as this run's own work tells.
  const double rate =
      seconds > 0 ? static_cast<double>(done - std::min(done, before)) / seconds : 0;
  const double left = rate > 0 ? static_cast<double>(total - std::min(done, total)) / rate : 0;
  const double part = total ? static_cast<double>(done) / static_cast<double>(total) : 1;
  const bool end = done >= total;
  if (end && last_done_ == done) return;
  last_done_ = done;
  if (style_ == Style::kJson) {
    return say_json([&](base::JsonWriter& json) {
      json.member("event", "progress").member("done", done).member("total", total);
      json.member("bytes_per_second", std::round(rate)).member("seconds", seconds);
    });
  }
  const std::string text =
      fmt::format("{:3.0f}%  {} of {}  {}/s  {}", 100 * part, base::human_bytes(done),
                  base::human_bytes(total), base::human_bytes(static_cast<uint64_t>(rate)),
                  end ? base::human_seconds(seconds) : base::human_seconds(left) + " left");
  if (style_ == Style::kBar) {
    const auto full = static_cast<size_t>(part * kBarCells);
    say(fmt::format("\r\033[K[{}{}] {}", std::string(full, '#'),
                    std::string(kBarCells - std::min(full, kBarCells), '.'), text));
    shown_ = true;
  } else if (style_ == Style::kPlain && (end || now - last_line_ >= kPlainInterval)) {
    say(fmt::format("{}\n", text));
    last_line_ = now;
  }
}

void Progress::planned(const convert::Forecast& f) {
  if (style_ == Style::kJson) {
    say_json([&](base::JsonWriter& json) {
      json.member("event", "plan").member("files", f.files).member("inodes", f.inodes);
      json.member("stored_bytes", f.stored_bytes).member("read_bytes", f.read_bytes);
      json.member("memory", f.memory).member("seconds", f.seconds);
    });
  } else if (style_ != Style::kNone && f.seconds > 0) {
    say(fmt::format("{} files to write, about {} on disk, in about {}\n", f.files,
                    base::human_bytes(f.stored_bytes), base::human_seconds(f.seconds)));
  }
}

void Progress::phase(const char* name) {
  if (style_ == Style::kJson)
    say_json([&](base::JsonWriter& json) { json.member("event", "phase").member("phase", name); });
  if (style_ != Style::kBar || std::string_view(name) != "sync") return;
  say(fmt::format("\r\033[K{} ...", name));
  shown_ = true;
}

void Progress::written(const convert::Written& w) {
  if (style_ != Style::kJson) return;
  say_json([&](base::JsonWriter& json) {
    json.member("event", w.of > 0 ? "item" : "file").member("file", w.path);
    if (w.of > 0) json.member("item", w.item).member("of", w.of);
    json.member("bytes", w.bytes);
  });
}

void Progress::log(int32_t level, const std::string& text) {
  if (style_ != Style::kJson) return show_log(level, text);
  if (const char* name = shown_level(level)) {
    say_json([&](base::JsonWriter& json) {
      json.member("event", "log").member("level", name).member("text", text);
    });
  }
}

void Progress::end(const char* status, const std::string& text,
                   const std::vector<std::string>& notes) {
  clear();
  if (style_ != Style::kJson) return;
  for (const std::string& note : notes)
    say_json([&](base::JsonWriter& json) { json.member("event", "note").member("text", note); });
  say_json([&](base::JsonWriter& json) {
    json.member("event", "end").member("status", status).member("seconds", seconds());
    if (!text.empty()) json.member("text", text);
  });
}

void Progress::clear() {
  if (shown_) say("\r\033[K");
  shown_ = false;
}

}  // namespace crossdock::app
