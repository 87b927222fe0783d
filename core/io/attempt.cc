// SPDX-License-Identifier: Apache-2.0
#include "core/io/attempt.h"

#include <signal.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <fstream>
#include <random>
#include <sstream>

namespace crossdock::io {

namespace {

std::string first_line(const std::string& path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

// Field 22 of /proc/PID/stat; the second one, a name in brackets, may hold spaces.
std::string start_of(int64_t process) {
  const std::string line = first_line(cat("/proc/", process, "/stat"));
  const size_t bracket = line.rfind(')');
  if (bracket == std::string::npos) return "";
  std::istringstream fields(line.substr(bracket + 1));
  std::string field;
  for (int i = 3; i <= 22; ++i) fields >> field;
  return field;
}

void parse_first(const std::string& record, Attempt& out) {
  std::istringstream lines(record);
  std::string process, inode;
  for (std::string* line :
       {&out.runner.host, &out.runner.boot, &process, &out.runner.started, &inode})
    std::getline(lines, *line);
  out.runner.process = std::strtoll(process.c_str(), nullptr, 10);
  out.tree_inode = std::strtoull(inode.c_str(), nullptr, 10);
}

}  // namespace

Runner Runner::self() {
  Runner out;
  std::array<char, 256> host{};
  if (::gethostname(host.data(), host.size() - 1) == 0) out.host = host.data();
  out.boot = first_line("/proc/sys/kernel/random/boot_id");
  out.process = ::getpid();
  out.started = start_of(out.process);
  return out;
}

bool Runner::is_of_this_boot() const { return !boot.empty() && boot == self().boot; }

bool Runner::is_alive() const {
  return is_of_this_boot() && process > 0 &&
         (::kill(static_cast<pid_t>(process), 0) == 0 || errno == EPERM) &&
         start_of(process) == started;
}

std::string first_record(const Runner& runner, uint64_t tree_inode) {
  return cat(runner.host, '\n', runner.boot, '\n', runner.process, '\n', runner.started, '\n',
             tree_inode, '\n');
}

std::string new_attempt_name(const Runner& runner) {
  std::string host = runner.host.substr(0, 32);
  std::replace_if(
      host.begin(), host.end(), [](unsigned char c) { return std::isalnum(c) == 0; }, '-');
  std::random_device random;
  return fmt::format("{}-{}-{:08x}", host, runner.process, random());
}

Result<Attempt> read_attempt(Os& os, const fs::path& journal) {
  XD_TRY_SET(JournalRecords records, read_journal(os, journal));
  Attempt out;
  out.name = journal.stem().string();
  if (records.all.empty()) return out;
  parse_first(records.all.front(), out);
  if (!out.runner.is_of_this_boot()) records.all.resize(records.n_durable);
  if (!records.all.empty()) records.all.erase(records.all.begin());
  out.records = std::move(records.all);
  out.is_over =
      !out.runner.is_alive() && (out.runner.is_of_this_boot() || is_local(journal.parent_path()));
  return out;
}

bool is_local(const fs::path& folder) {
  // ext2 to ext4, XFS, btrfs, tmpfs, F2FS, ZFS; containers see these through overlayfs.
  constexpr std::array<uint32_t, 7> kLocal{0xef53,     0x58465342, 0x9123683e, 0x01021994,
                                           0xf2f52010, 0x2fc12fc1, 0x794c7630};
  struct statfs st {};
  return ::statfs(folder.c_str(), &st) == 0 &&
         std::find(kLocal.begin(), kLocal.end(), static_cast<uint32_t>(st.f_type)) != kLocal.end();
}

}  // namespace crossdock::io
