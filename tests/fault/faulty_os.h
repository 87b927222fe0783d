// SPDX-License-Identifier: Apache-2.0

// A file system whose n-th call of one kind fails.
#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <string>

#include "core/io/os.h"

namespace crossdock::test {

class FaultyOs : public io::Os {
 public:
  // The n-th call (from 1) of the system call `kind` fails with this errno; no kind: none does.
  struct Fault {
    std::string kind;
    int nth = 0;
    int error = 0;
  };

  FaultyOs() : FaultyOs(Fault{}) {}
  explicit FaultyOs(Fault fault) : fault_(std::move(fault)) {}

  bool no_rename_flags = false;         // as some network file systems: EINVAL
  std::function<void(int call)> watch;  // before every call, with its number over all kinds

  const std::map<std::string, int>& counts() const {
    return counts_;
  }  // how often each kind was called
  int calls() const { return calls_; }
  bool struck() const { return struck_; }
  const std::string& path() const { return path_; }  // of the call that failed

  int close(int fd) override;
  int openat(int dir, const char* path, int flags, mode_t mode) override;
  int mkdirat(int dir, const char* path, mode_t mode) override;
  int unlinkat(int dir, const char* path, int flags) override;
  int link(const char* from, const char* to) override;
  int renameat2(const char* from, const char* to, unsigned flags) override;
  int fstat(int fd, struct stat* out) override;
  int ftruncate(int fd, uint64_t size) override;
  ssize_t pread(int fd, void* dst, size_t n, uint64_t offset) override;
  ssize_t pwrite(int fd, const void* src, size_t n, uint64_t offset) override;
  int syncfs(int fd) override;
  int fsync(int fd) override;
  int flock(int fd, int operation) override;

 private:
  bool fails(const char* kind, const std::string& path);
  bool fails(const char* kind, int fd);

  const Fault fault_;
  std::mutex mutex_;
  std::map<std::string, int> counts_;
  int calls_ = 0;
  bool struck_ = false;
  std::string path_;
};

}  // namespace crossdock::test
