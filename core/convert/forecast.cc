// SPDX-License-Identifier: Apache-2.0
#include "core/convert/forecast.h"

#include "core/base/text.h"

#include <fcntl.h>
#include <sys/statvfs.h>

#include <boost/filesystem/operations.hpp>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <limits>
#include <set>
#include <sstream>

namespace crossdock::convert {

namespace {

namespace fs = boost::filesystem;

constexpr uint64_t kUnlimited = std::numeric_limits<uint64_t>::max();
// Below that a probe would take longer than it tells.
constexpr uint64_t kMinProbedBytes = uint64_t{4} << 30;
constexpr uint64_t kProbeBytes = 64 << 20;

// Files, and the folders above them.
uint64_t count_inodes(const plugin::Plan& plan, const std::vector<bool>& files) {
  std::set<std::string> folders;
  uint64_t n = 0;
  const auto add = [&](const std::string& path) {
    ++n;
    for (size_t slash = path.find('/'); slash != path.npos; slash = path.find('/', slash + 1))
      folders.insert(path.substr(0, slash));
  };
  for (size_t i = 0; i < files.size(); ++i) {
    if (!files[i]) continue;
    const size_t n_objects = plan.objects.size();
    add(i < n_objects ? plan.objects[i].path : plan.aux[i - n_objects].first);
  }
  return n + folders.size();
}

void look_at_disk(const fs::path& destination, Forecast& out) {
  boost::system::error_code ec;
  fs::path existing = destination.parent_path();
  while (!fs::exists(existing, ec) && existing.has_parent_path()) existing = existing.parent_path();
  struct statvfs st {};
  out.free_bytes = out.free_inodes = kUnlimited;
  if (::statvfs(existing.c_str(), &st) != 0) return;
  out.free_bytes = uint64_t{st.f_bavail} * st.f_frsize;
  if (st.f_files != 0) out.free_inodes = st.f_favail;  // btrfs makes them as they are needed
}

uint64_t number_in(const std::string& path, const std::string& key) {
  std::ifstream in(path);
  std::string line;
  while (std::getline(in, line)) {
    uint64_t value = 0;
    if (line.starts_with(key) && std::istringstream(line.substr(key.size())) >> value) return value;
  }
  return kUnlimited;
}

// What the machine has, or the container may still take.
uint64_t free_memory() {
  const uint64_t kib = number_in("/proc/meminfo", "MemAvailable:");
  const uint64_t machine = kib == kUnlimited ? kUnlimited : kib << 10;
  const uint64_t most = number_in("/sys/fs/cgroup/memory.max", "");
  const uint64_t now = number_in("/sys/fs/cgroup/memory.current", "");
  if (most == kUnlimited || now == kUnlimited) return machine;
  return std::min(machine, most - std::min(now, most));
}

using Clock = std::chrono::steady_clock;
double rate(uint64_t bytes, Clock::time_point since) {
  const double seconds = std::chrono::duration<double>(Clock::now() - since).count();
  return static_cast<double>(bytes) / std::max(seconds, 1e-6);
}

// Bytes a second; 0: it could not be tried.
double reading_rate(Session& session, const Prepared& prepared) {
  const auto& files = prepared.target.source.files;
  const auto largest = std::max_element(
      files.begin(), files.end(), [](const auto& a, const auto& b) { return a.size < b.size; });
  const base::Block block(session.memory, session.window_bytes());
  if (largest == files.end() || !block.data) return 0;
  const auto source = session.host.open_source({&prepared.source->input()}, largest->name);
  if (!source) return 0;
  const uint64_t n = std::min(kProbeBytes, largest->size / 2);
  const auto start = Clock::now();
  for (uint64_t at = 0; at < n; at += session.window_bytes()) {
    const uint64_t some = std::min(session.window_bytes(), n - at);
    if (!session.host.read_source(**source, largest->size / 2 + at, {block.data, some})) return 0;
  }
  return n == 0 ? 0 : rate(n, start);
}

double writing_rate(Session& session, const fs::path& probe) {
  io::Os& os = session.host.os();
  const base::Block block(session.memory, session.window_bytes());
  const io::Fd fd(
      os.openat(AT_FDCWD, probe.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
  if (!fd.valid() || !block.data) return 0;
  const auto start = Clock::now();
  bool done = true;
  for (uint64_t at = 0; at < kProbeBytes && done; at += session.window_bytes())
    done = io::write_exact(os, fd.get(), at, {block.data, session.window_bytes()}).has_value();
  done = done && (!session.request.sync || os.fsync(fd.get()) == 0);
  const double found = rate(kProbeBytes, start);
  return os.unlinkat(AT_FDCWD, probe.c_str(), 0) == 0 && done ? found : 0;
}

double seconds_for(uint64_t bytes, double bytes_per_second) {
  return bytes_per_second > 0 ? static_cast<double>(bytes) / bytes_per_second : 0;
}

}  // namespace

Forecast forecast(Session& session, const Prepared& prepared, const Planned& planned,
                  const std::vector<bool>& files, uint64_t bytes, const fs::path& probe) {
  Forecast out;
  out.files = static_cast<uint64_t>(std::count(files.begin(), files.end(), true));
  out.inodes = count_inodes(planned.plan, files);
  out.stored_bytes = bytes;
  const PlanSummary& whole = planned.summary;
  const double share =
      whole.stored_bytes == 0
          ? 0
          : std::min(1.0, static_cast<double>(bytes) / static_cast<double>(whole.stored_bytes));
  out.read_bytes = static_cast<uint64_t>(share * static_cast<double>(whole.source_bytes));
  out.memory = whole.peak_memory;
  out.free_memory = free_memory();
  look_at_disk(prepared.destination, out);
  if (bytes < kMinProbedBytes) return out;
  // Reading and writing overlap.
  out.seconds = seconds_for(out.read_bytes, reading_rate(session, prepared));
  if (!probe.empty())
    out.seconds = std::max(out.seconds, seconds_for(bytes, writing_rate(session, probe)));
  return out;
}

Result<void> check_fits(const Forecast& f, const fs::path& destination) {
  const char* advice = "or --force to try all the same";
  if (f.stored_bytes > f.free_bytes) {
    return Error{XD_IO, cat("expected ", base::human_bytes(f.stored_bytes), " free for ",
                            destination.string(), ", found ", base::human_bytes(f.free_bytes),
                            ": free some, choose another disk, ", advice)};
  }
  if (f.inodes > f.free_inodes) {
    return Error{XD_IO,
                 cat("expected room for ", f.inodes, " files and folders in ", destination.string(),
                     ", found ", f.free_inodes, " inodes free: choose another disk, ", advice)};
  }
  if (f.memory > f.free_memory) {
    return Error{XD_NO_MEMORY,
                 cat("expected ", base::human_memory(f.memory), " of memory for buffers, found ",
                     base::human_memory(f.free_memory), " free: lower --memory, ", advice)};
  }
  return {};
}

}  // namespace crossdock::convert
