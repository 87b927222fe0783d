// How a report proves itself: the last member of its text is a digest of all bytes before it,
// `"digest": "xxh3:<32 hex>"`, the XXH3-128 in its canonical form, as `xxhsum -H2` prints it.
#pragma once

#include <string>
#include <string_view>

namespace crossdock::report {

// `text`: an object as base::JsonWriter ends one. The same with the digest as its last member.
std::string with_digest(std::string text);

// Whether the text ends with the digest of what stands before it, to the last bit.
bool proves_itself(std::string_view text);

}  // namespace crossdock::report
