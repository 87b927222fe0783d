// SPDX-License-Identifier: Apache-2.0
#include "apps/validate/child.h"

#include "core/base/sanitized.h"

#include <boost/filesystem/operations.hpp>

#include <dirent.h>
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cfenv>
#include <chrono>
#include <clocale>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <vector>

namespace crossdock::validate {

namespace {

namespace fs = boost::filesystem;

constexpr xd_status kSkip = 1000;  // no status of the ABI
constexpr size_t kStepBytes = 400;

// Shared with the child, so that it tells where it was when it can tell no more.
char* step_text() {
  static char* const text = static_cast<char*>(
      mmap(nullptr, kStepBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  return text;
}

void write_all(int fd, const std::string& text) {
  for (size_t at = 0; at < text.size();) {
    const ssize_t n = ::write(fd, text.data() + at, text.size() - at);
    if (n <= 0) return;
    at += static_cast<size_t>(n);
  }
}

// What a plugin shares with the whole process, and must leave as it was.
struct ProcessState {
  std::string folder;
  mode_t mask = 0;
  int rounding = 0;
  bool keeps_subnormals = true;
  std::array<void (*)(int), 3> handlers{};
  std::string locale;
  size_t threads = 0;

  // Opened once: a case may forbid to open anything.
  static size_t count_threads() {
    static DIR* const tasks = ::opendir("/proc/self/task");
    if (!tasks) return 0;
    ::rewinddir(tasks);
    size_t n = 0;
    while (const dirent* entry = ::readdir(tasks)) n += entry->d_name[0] != '.';
    return n;
  }
  static ProcessState now() {
    ProcessState out;
    out.folder = fs::current_path().string();
    out.mask = ::umask(0);
    ::umask(out.mask);
    out.rounding = std::fegetround();
    volatile float small = 1e-38f;
    out.keeps_subnormals = small * 0.01f != 0;
    constexpr std::array kSignals{SIGINT, SIGTERM, SIGSEGV};
    for (size_t i = 0; i < kSignals.size(); ++i) {
      struct sigaction action {};
      ::sigaction(kSignals[i], nullptr, &action);
      out.handlers[i] = action.sa_handler;
    }
    out.locale = std::setlocale(LC_ALL, nullptr);
    out.threads = count_threads();
    return out;
  }
  // What is another thing now, in words.
  std::string difference() const {
    // A thread that ends may take a moment.
    for (int left = 50; left > 0 && count_threads() > threads; --left) ::usleep(10'000);
    const ProcessState after = now();
    if (after.threads > threads) return "it left a thread running";
    if (after.folder != folder) return "it changed the current folder";
    if (after.mask != mask) return "it changed the umask";
    if (after.rounding != rounding || after.keeps_subnormals != keeps_subnormals)
      return "it changed how floating-point numbers are computed (rounding, or subnormal numbers "
             "as zero: -ffast-math)";
    if (after.handlers != handlers) return "it changed the handler of a signal";
    if (after.locale != locale) return "it changed the locale";
    return {};
  }
};

[[noreturn]] void run_here(const std::function<Result<std::string>()>& body, int fd,
                           uint64_t memory) {
// A sanitizer maps terabytes.
#if !defined(CROSSDOCK_SANITIZED)
  const rlimit room{memory, memory};
  ::setrlimit(RLIMIT_AS, &room);
#endif
  const rlimit none{0, 0};
  ::setrlimit(RLIMIT_CORE, &none);
  ::setpgid(0, 0);
  (void)forbid_processes();
  const ProcessState before = ProcessState::now();
  std::string out;
  try {
    auto result = body();
    if (result) {
      if (const std::string changed = before.difference(); !changed.empty())
        result = Result<std::string>(Error{XD_INTERNAL, changed});
    }
    out = result ? "P" + *result
                 : (result.error().code == kSkip ? "S" : "F") + result.error().message;
  } catch (const std::bad_alloc&) {
    out = cat("Fit took more than ", memory, " bytes");
  } catch (const std::exception& e) {
    out = cat("F", e.what());
  }
  write_all(fd, out);
  ::_exit(0);
}

// What the child wrote before it ended, or until the time was up.
std::string read_until_end(int fd, std::chrono::steady_clock::time_point end, bool& is_late) {
  std::string out;
  for (;;) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        end - std::chrono::steady_clock::now());
    pollfd waited{fd, POLLIN, 0};
    const int ready = ::poll(&waited, 1, std::max(0, static_cast<int>(left.count())));
    if (ready == 0) {
      is_late = true;
      return out;
    }
    std::array<char, 4096> piece;
    const ssize_t n = ready > 0 ? ::read(fd, piece.data(), piece.size()) : -1;
    if (n == 0 || (n < 0 && errno != EINTR)) return out;
    if (n > 0) out.append(piece.data(), static_cast<size_t>(n));
  }
}

}  // namespace

Error skip(std::string why) { return {kSkip, std::move(why)}; }

void now_at(const std::string& step) {
  char* const text = step_text();
  const size_t n = std::min(step.size(), kStepBytes - 1);
  memcpy(text, step.data(), n);
  text[n] = '\0';
}

Outcome run_in_child(const std::function<Result<std::string>()>& body, unsigned seconds,
                     uint64_t memory) {
  const auto begin = std::chrono::steady_clock::now();
  now_at("");
  std::fflush(nullptr);
  int ends[2];
  if (::pipe(ends) != 0) return {Verdict::kFailed, "expected a pipe, found none", 0};
  const pid_t child = ::fork();
  if (child == 0) {
    ::close(ends[0]);
    ::dup2(STDERR_FILENO, STDOUT_FILENO);  // stdout is ours, and may be JSON
    run_here(body, ends[1], memory);
  }
  ::close(ends[1]);
  bool is_late = false;
  const std::string told = read_until_end(ends[0], begin + std::chrono::seconds(seconds), is_late);
  if (is_late) ::kill(child, SIGKILL);
  ::kill(-child, SIGKILL);  // and whatever it started
  ::close(ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  Outcome out;
  out.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  const std::string where = *step_text() ? cat(", in ", step_text()) : "";
  if (is_late) {
    out.text = cat("it had not ended after ", seconds, " s", where);
  } else if (WIFSIGNALED(status)) {
    const char* name = ::sigabbrev_np(WTERMSIG(status));
    out.text = cat("it crashed (SIG", name ? name : "?", ")", where);
  } else if (WEXITSTATUS(status) != 0 || told.empty()) {
    out.text = cat("it ended the process (exit code ", WEXITSTATUS(status), ")", where);
  } else {
    out.verdict = told[0] == 'P'   ? Verdict::kPassed
                  : told[0] == 'S' ? Verdict::kSkipped
                                   : Verdict::kFailed;
    out.text = told.substr(1);
  }
  return out;
}

namespace {

// The call that was forbidden, in the words of the failure; then the child ends.
void on_forbidden(int, siginfo_t* info, void*) {
  static char text[200];
  const int n = std::snprintf(text, sizeof text,
                              "it did I/O of its own, or started a process or a thread "
                              "(system call %d)",
                              info->si_syscall);
  const size_t used = std::min(strlen(step_text()), kStepBytes - 1);
  if (used + static_cast<size_t>(n) + 3 < kStepBytes) {
    memcpy(step_text() + used, ": ", 2);
    memcpy(step_text() + used + 2, text, static_cast<size_t>(n) + 1);
  }
  signal(SIGSYS, SIG_DFL);
  raise(SIGSYS);
}

}  // namespace

namespace {
bool install(std::vector<sock_filter> filter) {
  const sock_fprog program{static_cast<unsigned short>(filter.size()), filter.data()};
  struct sigaction action {};
  action.sa_sigaction = on_forbidden;
  action.sa_flags = SA_SIGINFO;
  ::sigaction(SIGSYS, &action, nullptr);
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}
}  // namespace

bool forbid_processes() {
  const auto jump = [](unsigned call, unsigned char over) {
    return sock_filter(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, over));
  };
  const sock_filter trap = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP);
  std::vector<sock_filter> filter{BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr))};
  // Its flags lie in memory, where a filter cannot look: libraries fall back to clone.
  filter.push_back(jump(__NR_clone3, 1));
  filter.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS));
  std::vector<unsigned> calls{__NR_execve, __NR_execveat};
#ifdef __NR_fork
  calls.insert(calls.end(), {__NR_fork, __NR_vfork});
#endif
  for (const unsigned call : calls) {
    filter.push_back(jump(call, 1));
    filter.push_back(trap);
  }
  // A thread is a clone of this flag.
  filter.push_back(jump(__NR_clone, 3));
  filter.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args[0])));
  filter.push_back(BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, CLONE_THREAD, 1, 0));
  filter.push_back(trap);
  filter.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  return install(std::move(filter));
}

bool forbid_io(bool threads) {
  std::vector<int> calls{__NR_openat,   __NR_socket,   __NR_connect, __NR_execve,
                         __NR_execveat, __NR_unlinkat, __NR_mkdirat, __NR_renameat2};
#ifdef __NR_open
  calls.insert(calls.end(), {__NR_open, __NR_creat, __NR_fork, __NR_vfork, __NR_unlink, __NR_mkdir,
                             __NR_rename});
#endif
  if (threads) calls.insert(calls.end(), {__NR_clone, __NR_clone3});
  std::vector<sock_filter> filter;
  filter.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)));
  for (const int call : calls) {
    filter.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<unsigned>(call), 0, 1));
    filter.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP));
  }
  filter.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  return install(std::move(filter));
}

}  // namespace crossdock::validate
