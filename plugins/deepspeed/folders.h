// SPDX-License-Identifier: Apache-2.0

// Which folders of an input hold what DeepSpeed saved: from names, and from the files that say
// which save is meant.
#pragma once

#include <crossdock/plugin.hpp>

#include <set>
#include <span>
#include <string>
#include <string_view>

namespace crossdock::deepspeed {

// Folders of universal checkpoints: the input's own (""), and "TAG/" of those in it.
std::set<std::string> universal_folders(std::span<const std::string> names);

// Whether ZeRO's own checkpoints are there too: optimizer states, in the input or a folder of it.
bool has_optimizer_states(std::span<const std::string> names);

// What both readers have to say of --from-tag: its help, and that SRC has no folders of tags.
inline constexpr const char* kTagHelp =
    "which checkpoint of DeepSpeed's folder; without it what `latest` or `latest_universal` says";
Error no_tags_in_src(std::string_view tag);

// "TAG/" and "TAG2/" as "TAG, TAG2".
std::string listed_tags(const std::set<std::string>& folders);

// A tag for a message: `latest` may be any file.
std::string quoted_tag(std::string_view tag);

// The tag that a file such as `latest` holds.
Result<std::string> read_tag(const Host& host, const Input& input, const std::string& file);

}  // namespace crossdock::deepspeed
