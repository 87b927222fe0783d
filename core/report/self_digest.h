// SPDX-License-Identifier: Apache-2.0

// How a report proves itself: the last member of its text is a digest of all bytes before it,
// `"report_digest": "xxh3:<32 hex>"`, the XXH3-128 in its canonical form, as `xxhsum -H2` prints it.
// It stands among the timings, so that reports of runs that made the same differ nowhere else.
#pragma once

#include <string>
#include <string_view>

namespace crossdock::report {

// `text`: an object as base::JsonWriter ends one, whose last member is an object.
// The same with the digest as the last member of that.
std::string with_digest(std::string text);

// Whether the text ends with the digest of what stands before it, to the last bit.
bool proves_itself(std::string_view text);

}  // namespace crossdock::report
