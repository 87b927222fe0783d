// SPDX-License-Identifier: Apache-2.0
#include "tests/fault/faulty_os.h"

#include <limits.h>
#include <unistd.h>

#include <cerrno>

namespace crossdock::test {

bool FaultyOs::fails(const char* kind, const std::string& path) {
  int call = 0;
  {
    const std::lock_guard lock(mutex_);
    call = ++calls_;
    if (++counts_[kind] == fault_.nth && kind == fault_.kind) {
      struck_ = true;
      path_ = path;
      errno = fault_.error;
      return true;
    }
  }
  if (watch) watch(call);
  return false;
}

bool FaultyOs::fails(const char* kind, int fd) {
  char target[PATH_MAX];
  const ssize_t n =
      ::readlink(("/proc/self/fd/" + std::to_string(fd)).c_str(), target, sizeof target);
  return fails(kind, std::string(target, n > 0 ? static_cast<size_t>(n) : 0));
}

int FaultyOs::close(int fd) {
  const bool failed = fails("close", fd);
  const int error = errno;
  const int done = Os::close(fd);  // a failed close closes too
  if (failed) errno = error;
  return failed ? -1 : done;
}
int FaultyOs::openat(int dir, const char* path, int flags, mode_t mode) {
  return fails("openat", path) ? -1 : Os::openat(dir, path, flags, mode);
}
int FaultyOs::mkdirat(int dir, const char* path, mode_t mode) {
  return fails("mkdirat", path) ? -1 : Os::mkdirat(dir, path, mode);
}
int FaultyOs::unlinkat(int dir, const char* path, int flags) {
  return fails("unlinkat", path) ? -1 : Os::unlinkat(dir, path, flags);
}
int FaultyOs::link(const char* from, const char* to) {
  return fails("link", to) ? -1 : Os::link(from, to);
}
int FaultyOs::renameat2(const char* from, const char* to, unsigned flags) {
  if (no_rename_flags && flags != 0) return errno = EINVAL, -1;
  return fails("renameat2", to) ? -1 : Os::renameat2(from, to, flags);
}
int FaultyOs::fstat(int fd, struct stat* out) {
  return fails("fstat", fd) ? -1 : Os::fstat(fd, out);
}
int FaultyOs::ftruncate(int fd, uint64_t size) {
  return fails("ftruncate", fd) ? -1 : Os::ftruncate(fd, size);
}
ssize_t FaultyOs::pread(int fd, void* dst, size_t n, uint64_t offset) {
  return fails("pread", fd) ? -1 : Os::pread(fd, dst, n, offset);
}
ssize_t FaultyOs::pwrite(int fd, const void* src, size_t n, uint64_t offset) {
  return fails("pwrite", fd) ? -1 : Os::pwrite(fd, src, n, offset);
}
int FaultyOs::syncfs(int fd) { return fails("syncfs", fd) ? -1 : Os::syncfs(fd); }
int FaultyOs::fsync(int fd) { return fails("fsync", fd) ? -1 : Os::fsync(fd); }
int FaultyOs::flock(int fd, int operation) {
  return fails("flock", fd) ? -1 : Os::flock(fd, operation);
}

}  // namespace crossdock::test
