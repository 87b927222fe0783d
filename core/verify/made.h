// SPDX-License-Identifier: Apache-2.0

// A conversion that was planned again of its source, with the report of what it wrote.
#pragma once

#include "core/convert/planning.h"
#include "core/report/report.h"

#include <cstdint>
#include <functional>

namespace crossdock::verify {

// What was to be made, of which source. The referred ones outlive it.
struct Made {
  convert::Session& session;
  const convert::Prepared& prepared;
  const convert::Planned& planned;
  const report::Report& report;
};

using Progress = std::function<void(uint64_t done, uint64_t total)>;

}  // namespace crossdock::verify
