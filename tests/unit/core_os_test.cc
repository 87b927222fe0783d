// SPDX-License-Identifier: Apache-2.0
#include "core/io/os.h"

#include <fcntl.h>

#include <cerrno>
#include <cstring>

#include "tests/unit/core_test_support.h"

using namespace crossdock;
using namespace crossdock::io;
using namespace crossdock::test;

namespace {

// Gives and takes at most `step` bytes a call, and is interrupted before every one.
struct SlowOs : Os {
  size_t step = 3;
  bool interrupted = false;
  bool interrupt() {
    interrupted = !interrupted;
    if (interrupted) errno = EINTR;
    return interrupted;
  }
  ssize_t pread(int fd, void* dst, size_t n, uint64_t offset) override {
    return interrupt() ? -1 : Os::pread(fd, dst, std::min(n, step), offset);
  }
  ssize_t pwrite(int fd, const void* src, size_t n, uint64_t offset) override {
    return interrupt() ? -1 : Os::pwrite(fd, src, std::min(n, step), offset);
  }
};

std::span<std::byte> bytes_of(std::string& text) {
  return {reinterpret_cast<std::byte*>(text.data()), text.size()};
}

}  // namespace

TEST_CASE("short and interrupted reads and writes are carried on") {
  const TempDir dir;
  SlowOs os;
  const Fd fd(os.openat(AT_FDCWD, (dir / "f").c_str(), O_RDWR | O_CREAT, 0600));
  REQUIRE(fd.valid());
  REQUIRE(write_exact(os, fd.get(), 4, as_bytes("0123456789")));
  CHECK(get(dir / "f") == std::string(4, '\0') + "0123456789");
  std::string back(10, '-');
  REQUIRE(read_exact(os, fd.get(), 4, bytes_of(back)));
  CHECK(back == "0123456789");
  CHECK(read_exact(os, fd.get(), 1'000, {}).has_value());  // nothing is always there
}

TEST_CASE("a file that ends early is corrupt, and says where") {
  const TempDir dir;
  put(dir / "f", "0123456789");
  SlowOs os;
  const Fd fd(os.openat(AT_FDCWD, (dir / "f").c_str(), O_RDONLY, 0));
  std::string back(4, '-');
  const auto result = read_exact(os, fd.get(), 8, bytes_of(back));
  CHECK(contains(message(result), "expected 4 bytes at offset 8, found the file's end at 10"));
  CHECK(result.error().code == XD_CORRUPT);
}

TEST_CASE("an error says what was tried and why it failed") {
  Os os;
  const Fd none(-1);
  std::string back(4, '-');
  CHECK(message(read_exact(os, none.get(), 8, bytes_of(back))) ==
        "read 4 bytes at 8: Bad file descriptor");
  CHECK(message(write_exact(os, none.get(), 8, as_bytes("x"))) ==
        "write 1 bytes at 8: Bad file descriptor");
  errno = ENOENT;
  CHECK(os_error("x").code == XD_NOT_FOUND);
  errno = ENOSPC;
  CHECK(os_error("x").code == XD_IO);
  CHECK(os_error("x").message == "x: No space left on device");
}

TEST_CASE("a disk that takes nothing is an error, not a loop") {
  struct Stuck : Os {
    ssize_t pwrite(int, const void*, size_t, uint64_t) override { return 0; }
  } os;
  errno = 0;
  CHECK(message(write_exact(os, 0, 0, as_bytes("x"))) == "write 1 bytes at 0: Input/output error");
}

TEST_CASE("a descriptor is closed once, by its last owner") {
  const TempDir dir;
  put(dir / "f");
  Fd a(Os::real().openat(AT_FDCWD, (dir / "f").c_str(), O_RDONLY, 0));
  const int number = a.get();
  Fd b = std::move(a);
  CHECK_FALSE(a.valid());
  CHECK(fcntl(number, F_GETFD) >= 0);
  {
    Fd c;
    c = std::move(b);
    CHECK(fcntl(number, F_GETFD) >= 0);
  }
  CHECK(fcntl(number, F_GETFD) == -1);
}
