// SPDX-License-Identifier: Apache-2.0
#include "plugins/writer_dcp/settings.h"

#include <algorithm>

#include "plugins/common/quote.h"

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
constexpr xd_option_desc kProfile = {XD_INIT_SIZE(xd_option_desc),
                                     0,
                                     "dcp-profile",
                                     "enum:plain|accelerate|torchtitan",
                                     "plain",
                                     "whose folder: plain (the state dict alone), accelerate "
                                     "(FSDP's sharded state dict), torchtitan "
                                     "(its own names of Llama 3 and Qwen 3)"};
constexpr xd_option_desc kPrefix = {
    XD_INIT_SIZE(xd_option_desc),
    0,
    "dcp-prefix",
    "string",
    "",
    "the keys that lead to the model in the job's state dict, as in app.model; accelerate: model"};

std::vector<std::string> split(const std::string& keys) {
  std::vector<std::string> out;
  for (size_t begin = 0; begin < keys.size();) {
    const size_t end = std::min(keys.find('.', begin), keys.size());
    out.push_back(keys.substr(begin, end - begin));
    begin = end + 1;
  }
  return out;
}

}  // namespace

const xd_option_desc* const kOptions[] = {
    &common::kDtypeOption, &kShards, &kProfile, &kPrefix, &common::kAllowOverflowOption, nullptr};

Result<Settings> Settings::from(const Options& options) {
  Settings out;
  out.cast = common::FloatCast::from(options);
  const std::string profile = options.text("dcp-profile");
  out.profile = profile == "accelerate"   ? Profile::kAccelerate
                : profile == "torchtitan" ? Profile::kTorchtitan
                                          : Profile::kPlain;
  const std::string shards = options.text("dcp-shards");
  out.n_shards = options.number("dcp-shards");
  if (shards.starts_with('-') || out.n_shards == 0 || out.n_shards > kMaxShards)
    return invalid(cat("--dcp-shards: expected 1 to ", kMaxShards, ", found ", shards,
                       ": use the number of ranks that will load it"));
  out.prefix = split(options.text("dcp-prefix"));
  const bool is_bad = std::ranges::any_of(out.prefix, &std::string::empty);
  if (is_bad || options.text("dcp-prefix").ends_with('.'))
    return invalid(cat("--dcp-prefix: expected keys joined by dots, as in app.model, found ",
                       common::in_quotes(options.text("dcp-prefix"))));
  if (out.profile == Profile::kAccelerate && out.prefix.empty()) out.prefix = {"model"};
  return out;
}

}  // namespace crossdock::writer_dcp
