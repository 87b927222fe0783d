// SPDX-License-Identifier: Apache-2.0

// The reader of a kind of DeepSpeed's checkpoints: what zero's and universal's plugins have in
// common.
#pragma once

#include "plugins/common/hf_folder.h"
#include "plugins/common/read_range.h"
#include "plugins/deepspeed/folders.h"
#include "plugins/deepspeed/rounded.h"
#include "plugins/deepspeed/tensors.h"
#include "plugins/torch/read/torch_file.h"

#include <memory>

namespace crossdock::deepspeed {

// `Kind` has
//   static int score(const Host&, const Input&);
//   static Result<Opened> open(const Host&, const Input&, const std::string& tag, Weights, bool
//   verify_crc); static const std::vector<C>& contents(const Opened&);
// where Opened has a manifest and its sources, and C, of each tensor, reads elements of these
// (Segments, or what has their n_elems(), elem_bytes() and read()). An Opened is immutable, so
// reads may run concurrently.
template <class Kind>
class CheckpointReader : public Reader {
 public:
  static int probe(const Host& host, const Input& input) { return Kind::score(host, input); }

  static Result<std::unique_ptr<Reader>> open(const Host& host, const Input& input,
                                              const Options& options) {
    auto out = std::make_unique<CheckpointReader>();
    XD_TRY_SET(out->opened_,
               Kind::open(host, input, options.text("from-tag"),
                          options.text("weights") == "model" ? Weights::kModel : Weights::kMaster,
                          options.flag("verify-crc")));
    const auto names = input.names(host);
    manifest::Manifest& m = out->opened_.manifest;
    XD_TRY_SET(m.source.config, common::read_config(host, input, names));
    m.aux_files = common::aux_files(names);
    return std::unique_ptr<Reader>(std::move(out));
  }

  Result<manifest::Manifest> manifest(const Host&) override { return opened_.manifest; }

  Result<void> read(const Host& host, const xd_range& range, std::span<std::byte> out) override {
    return common::read_one_of(
        opened_.manifest.tensors, range, [](const manifest::Tensor& t) { return t.name; },
        [&](const manifest::Tensor& t) -> Result<void> {
          const auto& content = Kind::contents(opened_)[range.tensor];
          XD_TRY(common::check_dense(range, t.dtype, content.n_elems(), out));
          const auto read = [&](uint64_t begin, std::span<std::byte> to) {
            return content.read(host, opened_.sources, begin, to);
          };
          const bool is_rounded = content.elem_bytes() != manifest::info(t.dtype).bits / 8;
          return is_rounded ? read_rounded(t.dtype, range.begin, out, read)
                            : read(range.begin, out);
        });
  }

 private:
  typename Kind::Opened opened_;
};

namespace reader_options {

constexpr xd_option_desc option(const char* name, const char* type, const char* fallback,
                                const char* help) {
  return {XD_INIT_SIZE(xd_option_desc), 0, name, type, fallback, help};
}
inline constexpr xd_option_desc kTag = option("from-tag", "string", "", kTagHelp);
inline constexpr xd_option_desc kWeights =
    option("weights", "enum:master|model", "master",
           "master: the optimizer's fp32 weights; model: the job's own, in its type");
inline constexpr xd_option_desc kVerify =
    option("verify-crc", "bool", "false", torch_read::kVerifyCrcHelp);
inline constexpr const xd_option_desc* kAll[] = {&kTag, &kWeights, &kVerify, nullptr};

}  // namespace reader_options

}  // namespace crossdock::deepspeed
