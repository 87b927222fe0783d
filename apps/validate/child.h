// SPDX-License-Identifier: Apache-2.0

// One case, in a process of its own: whatever a module does there, the others still run.
#pragma once

#include <crossdock/result.hpp>

#include <functional>
#include <string>

namespace crossdock::validate {

enum class Verdict { kPassed, kFailed, kSkipped };

struct Outcome {
  Verdict verdict = Verdict::kFailed;
  std::string text;  // why it failed or was skipped; of a passed one what it found out
  double seconds = 0;
};

// What a case returns: nothing, or an error; skip() for one that does not apply.
Error skip(std::string why);

// Where the module is, for the words about a crash: "open of x.npz cut to 17 bytes".
void now_at(const std::string& step);

// Runs it in a child. A crash, an exit, and `seconds` gone by are failures of the case, and so are
// more than `memory` bytes of address space.
Outcome run_in_child(const std::function<Result<std::string>()>& body, unsigned seconds,
                     uint64_t memory);

// From here on this process can start no other one. False: this system cannot forbid it.
bool forbid_processes();

// From here on this process can open no file or socket and start no other process: the host does
// all I/O. False: this system cannot forbid it. `threads`: nor a thread.
bool forbid_io(bool threads);

}  // namespace crossdock::validate
