#include "plugins/writer_safetensors/settings.h"

namespace crossdock::writer_safetensors {
namespace {

using manifest::DType;

constexpr xd_option_desc kDtype = {
    XD_INIT_SIZE(xd_option_desc),
    0,
    "dtype",
    "enum:bf16|fp16|fp32|source",
    "source",
    "element type of all F64, F32, F16 and BF16 tensors; others stay as they are"};
constexpr xd_option_desc kShardSize = {
    XD_INIT_SIZE(xd_option_desc),
    0,
    "shard-size",
    "size",
    "5GB",
    "the most bytes of tensors in one file; a larger tensor has a file of its own"};
constexpr xd_option_desc kAllowOverflow = {
    XD_INIT_SIZE(xd_option_desc),
    0,
    "allow-overflow",
    "bool",
    "false",
    "let values beyond --dtype become infinite; they are counted in a note"};

}  // namespace

const xd_option_desc* const kOptions[] = {&kDtype, &kShardSize, &kAllowOverflow, nullptr};

Result<Settings> Settings::from(const Options& options) {
  Settings out;
  const std::string dtype = options.text("dtype");
  out.dtype = dtype == "bf16"   ? DType::BF16
              : dtype == "fp16" ? DType::F16
              : dtype == "fp32" ? DType::F32
                                : DType::UNSPECIFIED;
  out.shard_bytes = options.number("shard-size");
  if (out.shard_bytes == 0)
    return invalid("--shard-size: expected at least 1 byte, found 0: try 5GB");
  out.allow_overflow = options.flag("allow-overflow");
  return out;
}

std::string_view flag_name(DType dtype) {
  return dtype == DType::BF16 ? "bf16" : dtype == DType::F16 ? "fp16" : "fp32";
}

}  // namespace crossdock::writer_safetensors
