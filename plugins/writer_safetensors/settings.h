// What the user asked of the writer, checked.
#pragma once

#include <crossdock/plugin.hpp>

namespace crossdock::writer_safetensors {

struct Settings {
  // What floating-point tensors are cast to; UNSPECIFIED: nothing is cast.
  manifest::DType dtype = manifest::DType::UNSPECIFIED;
  uint64_t shard_bytes = 0;
  bool allow_overflow = false;

  static Result<Settings> from(const Options& options);
};

extern const xd_option_desc* const kOptions[];

// "fp16", as --dtype spells it. Only of the types that it takes.
std::string_view flag_name(manifest::DType dtype);

}  // namespace crossdock::writer_safetensors
