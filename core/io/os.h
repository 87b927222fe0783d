// SPDX-License-Identifier: Apache-2.0

// Every effect on the file system, behind one interface that a test can fail call by call (after
// leveldb's Env).
//
// The methods are the system calls of the same names: they return -1 and set errno on failure.
// Production code uses Os::real(); tests derive from it and let the n-th call fail.
#pragma once

#include <crossdock/result.hpp>

#include <sys/stat.h>
#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

namespace crossdock::io {

class Os {
 public:
  virtual ~Os() = default;
  static Os& real();

  virtual int close(int fd);
  virtual int openat(int dir, const char* path, int flags, mode_t mode);
  virtual int mkdirat(int dir, const char* path, mode_t mode);
  virtual int unlinkat(int dir, const char* path, int flags);
  virtual int link(const char* from, const char* to);
  virtual int renameat2(const char* from, const char* to, unsigned flags);
  virtual int fstat(int fd, struct stat* out);
  virtual int ftruncate(int fd, uint64_t size);
  virtual ssize_t pread(int fd, void* dst, size_t n, uint64_t offset);
  virtual ssize_t pwrite(int fd, const void* src, size_t n, uint64_t offset);
  virtual int syncfs(int fd);
  virtual int fsync(int fd);
  virtual int flock(int fd, int operation);
};

// What errno says: "No space left on device".
std::string errno_text();
Error os_error(std::string what);  // "what: No such file or directory"

// Whether flock's errno says that the file system has no locks, as some network ones.
bool lacks_locks(int error);

// An open file descriptor, closed with the object.
class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Fd();
  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_ = -1;
};

// All n bytes, or an error; a file that ends early is XD_CORRUPT ("became shorter").
Result<void> read_exact(Os& os, int fd, uint64_t offset, std::span<std::byte> out);
Result<void> write_exact(Os& os, int fd, uint64_t offset, std::span<const std::byte> bytes);

}  // namespace crossdock::io
