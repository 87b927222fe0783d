// SPDX-License-Identifier: Apache-2.0

// crossdock/host.h on the requests that the command makes of its words: an option is a word.
#include "apps/command/convert_args.h"
#include "apps/command/inspect_args.h"
#include "apps/command/verify_args.h"
#include "core/base/json_writer.h"
#include "core/base/text.h"
#include "core/convert/convert.h"

#include <crossdock/host.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace crossdock::app {

namespace {

using Words = std::vector<std::string>;

constexpr uint64_t kMemoryOutsideConversions = 1 << 30;
// Flags of the command's own printing. "part" and "dry-run" and the rest are the job's.
constexpr std::array kOwnFlags{"help",   "json",    "log-level", "progress",
                               "report", "tensors", "trace"};

struct Answer {
  crossdock_status status;
  std::string text;
};

Answer answer_of(const Error& error) {
  return {error.code == XD_CANCELLED ? CROSSDOCK_CANCELLED : CROSSDOCK_FAILED, error.message};
}

Answer usage(std::string message) { return {CROSSDOCK_USAGE, std::move(message)}; }

// The caller's struct, of this header's version or an older or newer one.
crossdock_call known_part(const crossdock_call* given) {
  crossdock_call out{};
  if (given) std::memcpy(&out, given, std::min<size_t>(given->struct_size, sizeof out));
  return out;
}

Result<Words> words_of(const crossdock_call& call, std::initializer_list<const char*> paths) {
  Words out;
  if (call.n_options > 0 && !call.options)
    return invalid(cat("expected ", call.n_options, " options, found a null pointer"));
  for (uint32_t i = 0; i < call.n_options; ++i) {
    const crossdock_option& option = call.options[i];
    const std::string name = option.name ? option.name : "";
    if (name.empty() ||
        name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") != name.npos ||
        name.front() == '-')
      return invalid(
          cat("expected an option's name such as \"to\", found \"", base::printable(name), "\""));
    if (std::find(kOwnFlags.begin(), kOwnFlags.end(), name) != kOwnFlags.end())
      return invalid(
          cat("expected an option of the job, found ", name, ", which is the command's own"));
    out.push_back(option.value ? cat("--", name, "=", option.value) : cat("--", name));
  }
  out.push_back("--");
  for (const char* path : paths) {
    if (!path) return invalid("expected paths, found a null pointer");
    out.push_back(path);
  }
  return out;
}

// One call: what its caller is told, and asked.
class Call {
 public:
  explicit Call(const crossdock_call& told) : told_(told) {
    if (told_.is_cancelled)
      asker_ = std::jthread([this](const std::stop_token& stop) { ask(stop); });
  }

  const std::atomic<bool>& cancelled() const { return cancelled_; }
  void log(int32_t level, const std::string& text) {
    const std::lock_guard lock(log_mutex_);
    if (told_.log) told_.log(told_.user, level, base::printable(text).c_str());
  }
  void progress(uint64_t done, uint64_t total) const {
    if (told_.progress) told_.progress(told_.user, done, total);
  }
  void phase(const char* name) const {
    if (told_.phase) told_.phase(told_.user, name);
  }
  void open(std::optional<Session>& session, const Words& words) {
    static std::mutex loading;  // the list of loaded libraries is the process's
    const std::lock_guard lock(loading);
    session.emplace(words, kMemoryOutsideConversions, cancelled_,
                    [this](int32_t level, const std::string& text) { log(level, text); });
    session->warn_of_refusals();
  }

 private:
  void ask(const std::stop_token& stop) {
    std::mutex mutex;
    std::unique_lock lock(mutex);
    std::condition_variable_any wait;
    while (!stop.stop_requested() && !cancelled_) {
      if (told_.is_cancelled(told_.user) != 0) cancelled_ = true;
      wait.wait_for(lock, stop, std::chrono::milliseconds(100), [] { return false; });
    }
  }

  const crossdock_call told_;
  std::mutex log_mutex_;
  std::atomic<bool> cancelled_{false};
  std::jthread asker_;  // ends before the rest does
};

Answer convert_by(Call& call, const Words& words) {
  std::optional<Session> session;
  call.open(session, words);
  const auto parsed = parse_convert(words, *session);
  if (!parsed) return usage(parsed.error().message);
  convert::Callbacks callbacks;
  callbacks.progress = [&](uint64_t done, uint64_t total, uint64_t) { call.progress(done, total); };
  callbacks.phase = [&](const char* name) { call.phase(name); };
  callbacks.log = [&](int32_t level, const std::string& text) { call.log(level, text); };
  if (parsed->verify) {
    callbacks.check = [&](const convert::Unpublished& made) {
      call.phase("verify");
      return check_made(made, call.cancelled(),
                        [&](uint64_t done, uint64_t total) { call.progress(done, total); });
    };
  }
  const auto outcome = convert::convert(parsed->request, session->registry(), io::Os::real(),
                                        call.cancelled(), callbacks);
  if (!outcome) return answer_of(outcome.error());
  for (const std::string& note : outcome->plan.notes) call.log(XD_LOG_INFO, note);
  return {CROSSDOCK_DONE, outcome->report};
}

Answer inspect_by(Call& call, const Words& words) {
  std::optional<Session> session;
  call.open(session, words);
  const auto parsed = parse_inspect(words, *session);
  if (!parsed) return usage(parsed.error().message);
  Looked looked;
  const auto done = look_at(
      *session, *parsed, call.cancelled(),
      [&](const std::string& note) { call.log(XD_LOG_INFO, note); },
      [&](uint64_t n, uint64_t total) { call.progress(n, total); }, looked);
  if (!done) return answer_of(done.error());
  return {CROSSDOCK_DONE, model_json(*looked.opened.tensors, looked.values)};
}

std::string verdict_json(const verify::Verdict& v) {
  base::JsonWriter json;
  json.begin_object().member("good", v.is_good()).member("n_problems", v.n_problems);
  json.member("problems", v.problems).member("notes", v.notes);
  json.member("files", v.n_files)
      .member("bytes", v.n_bytes)
      .member("tensors", v.n_tensors)
      .end_object();
  return std::move(json).take();
}

Answer verify_by(Call& call, const Words& words) {
  const auto parsed = parse_verify(words);
  if (!parsed) return usage(parsed.error().message);
  std::optional<Session> session;
  call.open(session, words);
  const auto checked = check(*parsed, *session, call.cancelled(),
                             [&](uint64_t done, uint64_t total) { call.progress(done, total); });
  if (!checked) return answer_of(checked.error());
  return {checked->verdict.is_good() ? CROSSDOCK_DONE : CROSSDOCK_DAMAGED,
          verdict_json(checked->verdict)};
}

char* copy_of(const std::string& text) {
  char* out = static_cast<char*>(std::malloc(text.size() + 1));
  if (out) std::memcpy(out, text.c_str(), text.size() + 1);
  return out;
}

// No exception gets out: the caller may be C.
crossdock_status guarded(Answer (*work)(Call&, const Words&), const crossdock_call* given,
                         std::initializer_list<const char*> paths, char** text) noexcept {
  if (text) *text = nullptr;
  Answer answer{CROSSDOCK_FAILED, ""};
  try {
    try {
      const crossdock_call told = known_part(given);
      const auto words = words_of(told, paths);
      Call call(told);
      answer = words ? work(call, *words) : usage(words.error().message);
    } catch (const std::exception& e) {
      answer = {CROSSDOCK_FAILED, e.what()};
    } catch (...) {
      answer = {CROSSDOCK_FAILED, "expected to finish, found an exception of an unknown type"};
    }
  } catch (...) {  // no memory for a text
  }
  if (text) *text = copy_of(answer.text);
  return answer.status;
}

}  // namespace

}  // namespace crossdock::app

using namespace crossdock::app;

crossdock_status crossdock_convert(const char* source, const char* destination,
                                   const crossdock_call* call, char** text) {
  return guarded(convert_by, call, {source, destination}, text);
}

crossdock_status crossdock_inspect(const char* source, const crossdock_call* call, char** text) {
  return guarded(inspect_by, call, {source}, text);
}

crossdock_status crossdock_verify(const char* folder, const crossdock_call* call, char** text) {
  return guarded(verify_by, call, {folder}, text);
}

const char* crossdock_version(void) { return CROSSDOCK_VERSION; }

void crossdock_free(char* text) { std::free(text); }
