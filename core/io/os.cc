// SPDX-License-Identifier: Apache-2.0
#include "core/io/os.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

namespace crossdock::io {

Os& Os::real() {
  static Os os;
  return os;
}

int Os::openat(int dir, const char* path, int flags, mode_t mode) {
  return ::openat(dir, path, flags, mode);
}
int Os::mkdirat(int dir, const char* path, mode_t mode) { return ::mkdirat(dir, path, mode); }
int Os::unlinkat(int dir, const char* path, int flags) { return ::unlinkat(dir, path, flags); }
int Os::link(const char* from, const char* to) { return ::link(from, to); }
int Os::renameat2(const char* from, const char* to, unsigned flags) {
  return ::renameat2(AT_FDCWD, from, AT_FDCWD, to, flags);
}
int Os::close(int fd) {
  return ::close(fd) == 0 || errno == EINTR ? 0 : -1;
}  // Linux has closed it then, too
int Os::fstat(int fd, struct stat* out) { return ::fstat(fd, out); }
int Os::ftruncate(int fd, uint64_t size) { return ::ftruncate(fd, static_cast<off_t>(size)); }
ssize_t Os::pread(int fd, void* dst, size_t n, uint64_t offset) {
  return ::pread(fd, dst, n, static_cast<off_t>(offset));
}
ssize_t Os::pwrite(int fd, const void* src, size_t n, uint64_t offset) {
  return ::pwrite(fd, src, n, static_cast<off_t>(offset));
}
int Os::syncfs(int fd) { return ::syncfs(fd); }
int Os::fsync(int fd) { return ::fsync(fd); }
int Os::flock(int fd, int operation) { return ::flock(fd, operation); }

std::string errno_text() { return std::strerror(errno); }

Error os_error(std::string what) {
  const int code = errno == ENOENT ? XD_NOT_FOUND : XD_IO;
  return {code, what + ": " + errno_text()};
}

bool lacks_locks(int error) {
  return error == ENOSYS || error == EOPNOTSUPP || error == ENOLCK || error == EINVAL;
}

Fd::~Fd() {
  if (fd_ >= 0) ::close(fd_);
}

Result<void> read_exact(Os& os, int fd, uint64_t offset, std::span<std::byte> out) {
  const uint64_t whole = out.size();
  const uint64_t start = offset;
  while (!out.empty()) {
    const ssize_t n = os.pread(fd, out.data(), std::min<size_t>(out.size(), 1u << 30), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return os_error(cat("read ", whole, " bytes at ", start));
    if (n == 0) {
      return corrupt(cat("expected ", whole, " bytes at offset ", start,
                         ", found the file's end at ", offset,
                         ": it is cut off, or became shorter while it was read; fetch it again"));
    }
    out = out.subspan(static_cast<size_t>(n));
    offset += static_cast<uint64_t>(n);
  }
  return {};
}

Result<void> write_exact(Os& os, int fd, uint64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = os.pwrite(fd, bytes.data(), bytes.size(), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n == 0) errno = EIO;  // POSIX does not say what it would mean
    if (n <= 0) return os_error(cat("write ", bytes.size(), " bytes at ", offset));
    bytes = bytes.subspan(static_cast<size_t>(n));
    offset += static_cast<uint64_t>(n);
  }
  return {};
}

}  // namespace crossdock::io
