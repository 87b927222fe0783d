// SPDX-License-Identifier: Apache-2.0

// What a conversion makes, as a text: runs that have the same make the same files, whatever their
// threads, memory, language or place. It stands in the staging folder, so that a run knows whether
// it goes on with another's work, and can say why not.
#pragma once

#include "core/convert/planning.h"

#include <string>
#include <vector>

namespace crossdock::convert {

// JSON:
//   {"crossdock plan": 1, "id": "...", "source": SRC, "arguments": [...], "same": {...}}
// `same` has the versions of crossdock and the plugins, their options, the source's files (size,
// and digest or time), digests of the manifest that the writer was given and of its plan; the id is
// a digest of it. Source and arguments are for people, and for `crossdock commit`.
Result<std::string> plan_text(const Session& session, Prepared& prepared, const Planned& planned);

struct PlanText {
  std::string id, source;
  std::vector<std::string> arguments;
};
// Errors: another version's, or none of ours.
Result<PlanText> parse_plan(const std::string& text);

// How `theirs` differs from `ours`, to follow "found that": "--dtype was bf16, and is fp32 now".
// Empty where it does not. `ours` is of this version.
std::string plan_difference(const std::string& theirs, const std::string& ours);

}  // namespace crossdock::convert
