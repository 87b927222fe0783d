// The element type that config.json names, in its text.
#pragma once

#include <string>
#include <string_view>

namespace crossdock::writer_safetensors {

// The text with `name` ("bfloat16") as the value of the top level's "dtype" and "torch_dtype",
// where these are strings; all else stays, byte by byte. `text` is JSON, as a reader has checked.
std::string with_dtype(std::string_view text, std::string_view name);

}  // namespace crossdock::writer_safetensors
