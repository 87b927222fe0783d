// SPDX-License-Identifier: Apache-2.0

// A folder that crossdock wrote, against its own report, and against the source that it was made
// of.
#pragma once

#include "core/verify/files.h"
#include "core/verify/made.h"
#include "core/verify/opened.h"
#include "core/verify/verdict.h"

namespace crossdock::verify {

// DST/crossdock.json. Errors: none is there, or one that is not as crossdock wrote it.
Result<report::Report> read_report(io::Os& os, const fs::path& folder);

enum class Depth {
  kQuick,  // sizes, and whether the folder opens and has the tensors of its report
  kFull    // digests of all files too
};

// Every file of the report, and that the format's reader finds its tensors, by names and shapes.
// Files that the report does not list are a note. `open`: how readers are to be opened.
Result<Verdict> verify_folder(const Reading& reading, const plugin::Registry& registry,
                              const OpenOptions& open, const fs::path& folder,
                              const report::Report& report, Depth depth);

// The same, and all values against the source's. For a folder that is not published yet, too: then
// it needs no report of its own.
Result<Verdict> verify_against(const Reading& reading, const Made& made, const fs::path& folder,
                               Depth depth);

// The same of all that a conversion has just written, as one error: for convert --verify, before
// the folder appears. `made.report` is what will be its report.
Result<void> check_written(const Reading& reading, const Made& made, const fs::path& folder);

}  // namespace crossdock::verify
