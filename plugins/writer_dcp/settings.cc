#include "plugins/writer_dcp/settings.h"

namespace crossdock::writer_dcp {
namespace {

// More ranks than any job has: each shard is a file that is open while it is written.
constexpr uint64_t kMaxShards = 65536;

constexpr xd_option_desc kShards = {
    XD_INIT_SIZE(xd_option_desc),
    0,
    "dcp-shards",
    "int",
    "1",
    "cut each parameter's first dimension for this many ranks, as FSDP2 does; any number loads"};
constexpr xd_option_desc kProfile = {
    XD_INIT_SIZE(xd_option_desc),
    0,
    "dcp-profile",
    "enum:plain|accelerate",
    "plain",
    "names and folder: plain (the state dict itself), accelerate (FSDP's sharded state dict)"};

}  // namespace

const xd_option_desc* const kOptions[] = {&common::kDtypeOption, &kShards, &kProfile,
                                          &common::kAllowOverflowOption, nullptr};

Result<Settings> Settings::from(const Options& options) {
  Settings out;
  out.cast = common::FloatCast::from(options);
  out.profile =
      options.text("dcp-profile") == "accelerate" ? Profile::kAccelerate : Profile::kPlain;
  const std::string shards = options.text("dcp-shards");
  out.n_shards = options.number("dcp-shards");
  if (shards.starts_with('-') || out.n_shards == 0 || out.n_shards > kMaxShards)
    return invalid(cat("--dcp-shards: expected 1 to ", kMaxShards, ", found ", shards,
                       ": use the number of ranks that will load it"));
  return out;
}

}  // namespace crossdock::writer_dcp
