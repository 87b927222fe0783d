// SPDX-License-Identifier: Apache-2.0

// Where a conversion may write: checks on paths before anything is touched.
#pragma once

#include "core/io/input.h"
#include "core/report/report.h"

#include <crossdock/file_name.hpp>
#include <crossdock/result.hpp>

#include <set>
#include <string>

namespace crossdock::io {

// Both resolved. A folder is inside itself.
bool is_inside(const fs::path& path, const fs::path& folder);

// The destination as an absolute path with its parent resolved; its own name is kept, so that a
// link there can be seen.
Result<fs::path> resolve_destination(const std::string& destination);

// DST must not be SRC, hold it (or a file that SRC links to), or lie inside it.
Result<void> check_apart(const Input& source, const fs::path& destination);

// The names that a conversion's own report at `folder` lists, itself included; an error when it has
// none that can be read.
Result<std::set<std::string>> listed_in_report(const fs::path& folder);

// The report of a folder that a conversion made, if it can be read, and all files that it lists are
// there in their sizes.
Result<report::Report> published_report(const fs::path& folder);

// The names of everything in a folder: files as they are, folders with a '/' at the end, links and
// others with an '@'.
Result<std::set<std::string>> names_in(const fs::path& folder);

// Whether everything in `folder` is listed in its own report, so that it may be replaced. Otherwise
// the error names what is not.
Result<void> check_is_all_ours(const fs::path& folder);

inline constexpr char kReportName[] = "crossdock.json";

}  // namespace crossdock::io
