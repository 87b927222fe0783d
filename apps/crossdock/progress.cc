#include "apps/crossdock/progress.h"

#include "apps/crossdock/verbs.h"
#include "core/base/text.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

namespace crossdock::app {

namespace {
constexpr auto kPlainInterval = std::chrono::seconds(5);
constexpr size_t kBarCells = 30;
}  // namespace

bool Progress::parse(const std::string& text, Style& out) {
  if (text == "auto")
    out = isatty(STDERR_FILENO) ? Style::kBar : Style::kPlain;
  else if (text == "bar")
    out = Style::kBar;
  else if (text == "plain")
    out = Style::kPlain;
  else if (text == "json")
    out = Style::kJson;
  else if (text == "none")
    out = Style::kNone;
  else
    return false;
  return true;
}

void Progress::update(uint64_t done, uint64_t total) {
  const auto now = Clock::now();
  const double seconds = std::chrono::duration<double>(now - start_).count();
  const double rate = seconds > 0 ? static_cast<double>(done) / seconds : 0;
  const double left = rate > 0 ? static_cast<double>(total - std::min(done, total)) / rate : 0;
  const double part = total ? static_cast<double>(done) / static_cast<double>(total) : 1;
  const bool end = done >= total;
  if (end && last_done_ == done) return;
  last_done_ = done;
  if (style_ == Style::kJson) {
    return say(
        fmt::format("{{\"event\": \"progress\", \"done\": {}, \"total\": {}, \"bytes_per_second\": "
                    "{:.0f}, \"seconds\": {:.3f}}}\n",
                    done, total, rate, seconds));
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

void Progress::phase(const char* name) {
  if (style_ == Style::kJson)
    say(fmt::format("{{\"event\": \"phase\", \"phase\": \"{}\"}}\n", name));
  if (style_ != Style::kBar) return;
  say(fmt::format("\r\033[K{} ...", name));
  shown_ = true;
}

void Progress::clear() {
  if (shown_) say("\r\033[K");
  shown_ = false;
}

}  // namespace crossdock::app
