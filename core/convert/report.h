// SPDX-License-Identifier: Apache-2.0

// The report of a conversion, of what its stages made.
#pragma once

#include "core/convert/outputs.h"
#include "core/convert/source_proof.h"
#include "core/report/report.h"

#include <string>
#include <utility>
#include <vector>

namespace crossdock::convert {

// The stages' notes, then what the writer had to say of the files, each once.
std::vector<std::string> all_notes(const Session& session, const Outputs& outputs);

// `plan_id`: plan_text.h's. `digests`: of the source's tensors, by index; `proof`: of the rest of
// it.
report::Report make_report(const Session& session, const Prepared& prepared, const Planned& planned,
                           const Outputs& outputs, const std::string& plan_id,
                           std::vector<std::string> digests, SourceProof proof,
                           std::vector<std::pair<std::string, double>> timings);

}  // namespace crossdock::convert
