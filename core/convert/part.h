// SPDX-License-Identifier: Apache-2.0

// Which part of a conversion this process does, when several processes convert one checkpoint
// together: `--part 2/8`, or `--part auto`, where whatever started the processes (Open MPI,
// torchrun, Slurm, Kubernetes, ...) has said it in the environment. Both are pure.
#pragma once

#include <crossdock/result.hpp>

#include <cstdint>
#include <functional>
#include <string>

namespace crossdock::convert {

struct Part {
  uint32_t index = 0;  // from 0
  uint32_t count = 1;
  bool operator==(const Part&) const = default;
};

// "i/n", where i is from 0 to n-1.
Result<Part> parse_part(const std::string& text);

// A variable's value, or null where it is not set: std::getenv, or a test's table.
using Environment = std::function<const char*(const char* name)>;

// What --part auto means. Of several launchers inside one another the innermost counts, and a Slurm
// job array multiplies it: array task a of A with process p of P is part a*P+p of A*P. Refused when
// nothing says both the index and the count; a wrong guess would leave parts that nobody does.
Result<Part> find_part(const Environment& environment);

}  // namespace crossdock::convert
