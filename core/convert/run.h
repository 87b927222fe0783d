// SPDX-License-Identifier: Apache-2.0

// One run of a conversion, once its plan is made: it takes what others have done, writes its share,
// and publishes if all is there then.
#pragma once

#include "core/convert/convert.h"
#include "core/convert/source_proof.h"

#include <chrono>
#include <string>
#include <vector>

namespace crossdock::convert {

// Between the ranks of a job each tensor has some leaves of 4 KiB that meet in two files: room for
// those of thousands of tensors.
inline constexpr uint64_t kMaxSeamBytes = 16 << 20;

class Stopwatch {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// All that it is given outlives it. Threads: one.
class Run {
 public:
  Run(Session& session, Prepared& prepared, const Planned& planned, io::Staging& staging,
      std::string plan_id, Outcome& outcome)
      : session_(session),
        prepared_(prepared),
        planned_(planned),
        staging_(staging),
        plan_id_(std::move(plan_id)),
        outcome_(outcome),
        digests_(prepared.tensors->manifest(),
                 std::min(kMaxSeamBytes, session.request.memory / 16)),
        prover_(session, prepared),
        outputs_(staging, prepared, planned, digests_, prover_,
                 session.request.resume != Resume::kOff) {}

  // Writes what is to be written, and publishes if all is there then.
  Result<void> run(double planned_after);
  // What stays after this error, and what to tell of it.
  Error leave(Error error);

 private:
  Result<void> write();
  Result<void> look_ahead(const std::vector<Task>& tasks);
  Result<void> sync();
  Result<void> publish(double planned_after);
  void tell_phase(const char* phase) const {
    if (session_.callbacks.phase) session_.callbacks.phase(phase);
  }

  const Stopwatch writing_;
  Session& session_;
  Prepared& prepared_;
  const Planned& planned_;
  io::Staging& staging_;
  const std::string plan_id_;
  Outcome& outcome_;
  bool goes_on_ = true;  // with work of an earlier run, or another process
  TensorDigests digests_;
  SourceProver prover_;
  Outputs outputs_;
};

}  // namespace crossdock::convert
