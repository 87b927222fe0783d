// SPDX-License-Identifier: Apache-2.0

// `crossdock verify`: its command line as a request, and the check.
#pragma once

#include "apps/command/session.h"
#include "core/convert/session.h"
#include "core/verify/verdict.h"

#include <atomic>
#include <functional>
#include <string>
#include <vector>

namespace crossdock::app {

inline constexpr char kVerifyHelp[] =
    R"(crossdock verify DST [--quick]         a folder that crossdock wrote, against its report
crossdock verify DST --against SRC     and every value against the source
crossdock verify org/name              a download of the Hub, against its own records; offline

DST: every file has the size and the digest that DST/crossdock.json tells, the report the digest
at its own end, and the format's reader finds the report's tensors. A file that is missing, cut
off or changed in one bit is named. Files that the report does not list are told, and are no error.

--against SRC: what DST's reader gives must be, element by element, what SRC gives under the
conversion's own flags (names, composed tensors, casts, moments). The first element that differs
is named. What of SRC the values cannot tell (headers, codes, config.json) is held against the
report's digests. Files of SRC that were not read are not looked at.

org/name, a snapshot's or a models--org--name folder, or one of `hf download --local-dir`: each
file has the size that the commit's list tells, and the SHA-256 (large files) or git's SHA-1
(small ones) that the cache knows it by. Files that were never downloaded are told, and are an
error only where an index of shards that is there names them.

Exit code: 0 all is as it should be, 1 something is not or cannot be read, 2 wrong use.

)";

struct VerifyArgs {
  std::string folder, against;
  bool quick = false;
  uint64_t memory = 0;
  unsigned threads = 1;
  std::string progress;  // the word of --progress
  std::string help;      // what --help prints; the rest is then not set
};

// Errors: what is wrong with the words, as usage_error() prints it.
Result<VerifyArgs> parse_verify(const std::vector<std::string>& args);
std::vector<OptionGroup> verify_options(const plugin::Registry& registry,
                                        const std::vector<const plugin::Plugin*>& writers);

struct Checked {
  std::string what;  // was checked
  std::string good;  // what is to be said if no problem was found
  verify::Verdict verdict;
};
using OnBytes = std::function<void(uint64_t done, uint64_t total)>;

// Errors: what keeps it from looking. What it finds is in the verdict.
Result<Checked> check(const VerifyArgs& args, const Session& session,
                      const std::atomic<bool>& cancelled, const OnBytes& progress);

// What convert's --verify does: nothing that was written is believed.
Result<void> check_made(const convert::Unpublished& made, const std::atomic<bool>& cancelled,
                        const OnBytes& progress);

}  // namespace crossdock::app
