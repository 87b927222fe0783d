// SPDX-License-Identifier: Apache-2.0

// Every system call of a check fails in turn: it is told in one sentence, and never that all is
// well.
#include <cerrno>
#include <cstring>

#include "tests/fault/faulty_os.h"
#include "tests/fault/verify_job.h"

using namespace crossdock;
using namespace crossdock::test;

namespace {

using Check = std::function<Result<verify::Verdict>(io::Os&)>;

void fail_each(const Check& check) {
  FaultyOs sound;
  const auto verdict = check(sound);
  INFO(told(verdict));
  REQUIRE(is_sound(verdict));
  for (const char* kind : {"openat", "fstat", "pread"}) CHECK(sound.counts().count(kind));
  for (const auto& [kind, count] : sound.counts()) {
    for (int n = 1; n <= count; ++n) {
      for (const int error : {EIO, EACCES}) {
        FaultyOs os({kind, n, error});
        const auto judged = check(os);
        INFO(kind << " number " << n << " of " << os.path() << ": " << told(judged));
        REQUIRE(os.struck());
        CHECK_FALSE(is_sound(judged));
        CHECK(contains(told(judged), std::strerror(error)));
        CHECK(contains(told(judged), fs::path(os.path()).filename().string()));
      }
    }
  }
}

}  // namespace

TEST_CASE("a folder is never said to be sound when a call failed") {
  for (const CheckedFormat& format : checked_formats()) {
    INFO(format.to);
    CheckedJob job(format);
    fail_each([&](io::Os& os) { return job.alone(os); });
    fail_each([&](io::Os& os) { return job.alone(os, verify::Depth::kQuick); });
  }
}

TEST_CASE("a folder is never said to be equal to its source when a call failed") {
  for (const CheckedFormat& format : checked_formats()) {
    INFO(format.to);
    CheckedJob job(format);
    fail_each([&](io::Os& os) { return job.against(os); });
  }
}

TEST_CASE("a cancel ends a check at once, whatever it was at") {
  CheckedJob job(checked_formats()[1]);
  FaultyOs sound;
  REQUIRE(is_sound(job.against(sound)));
  int n_cancelled = 0;
  for (int n = 1; n <= sound.calls(); n += 3) {
    job.cancelled = false;
    FaultyOs os;
    os.watch = [&](int call) {
      if (call == n) job.cancelled = true;
    };
    const auto verdict = job.against(os);
    if (verdict) continue;  // in the last call of all
    ++n_cancelled;
    CHECK(verdict.error().code == XD_CANCELLED);
  }
  CHECK(n_cancelled > 10);
}

TEST_CASE("several threads find the same") {
  for (const CheckedFormat& format : checked_formats()) {
    CheckedJob job(format);
    job.threads = 4;
    for (int i = 0; i < 20; ++i) {
      CHECK(is_sound(job.alone()));
      CHECK(is_sound(job.against()));
    }
  }
}
