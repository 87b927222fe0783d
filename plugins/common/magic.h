// SPDX-License-Identifier: Apache-2.0

// What a file is that no reader takes, by its first bytes.
#pragma once

#include <string_view>

namespace crossdock::common {

// The first bytes of formats, and what to say of a file that has them in the place of another.
// Empty: not known. Four bytes are enough. `head` may be as long as one likes.
inline std::string_view what_begins_with(std::string_view head) {
  using namespace std::string_view_literals;
  constexpr std::string_view kOldGgml =
      "a ggml file of the time before GGUF: convert the original model again with llama.cpp of "
      "today";
  struct Known {
    std::string_view magic, what;
  };
  // Of ggml: "ggml", "ggmf", "ggjt" and "ggla" as integers of 32 bits.
  constexpr Known kKnown[] = {
      {"lmgg"sv, kOldGgml},
      {"fmgg"sv, kOldGgml},
      {"tjgg"sv, kOldGgml},
      {"algg"sv,
       "a ggml LoRA adapter of the time before GGUF: merge the original one into its model"},
      {"version https://git-lfs"sv,
       "a Git LFS pointer, not the file: run `git lfs pull` or `hf download`"},
      {"GGUF"sv, "a GGUF file: use --from gguf"},
      {"PK\x03\x04"sv,
       "a zip file, as torch.save writes: name the file itself, or unpack it if it is an archive "
       "of files"},
      {"<!DOCTYPE"sv, "an HTML page, as a failed download leaves: download it again"},
      {"<!doctype"sv, "an HTML page, as a failed download leaves: download it again"},
      {"<html"sv, "an HTML page, as a failed download leaves: download it again"},
      {"\x89HDF"sv, "an HDF5 file, as Keras writes: convert it with transformers first"},
      {"\x93NUMPY"sv, "a numpy array: save it as safetensors"},
      {"\x1f\x8b\x08"sv, "a gzip file: unpack it first"},
  };
  if (head.size() < 4) return {};
  for (const Known& known : kKnown) {
    const std::string_view magic = known.magic.substr(0, head.size());
    if (head.starts_with(magic)) return known.what;
  }
  return {};
}

}  // namespace crossdock::common
