// SPDX-License-Identifier: Apache-2.0

// org.crossdock.reader.zero: reads DeepSpeed's checkpoints of ZeRO stages 1, 2 and 3.
//
// open() reads directories and pickles only, one file at a time, and makes of each tensor the
// segments of the ranks' files that hold its values, and where ranks share a layer the boxes of
// these. read() is a read of each segment that the range touches. What open() made is immutable, so
// reads may run concurrently.
#include "plugins/deepspeed/reader.h"
#include "plugins/reader_zero/checkpoint.h"
#include "plugins/reader_zero/files.h"

namespace crossdock::reader_zero {

namespace {

struct Zero {
  using Opened = Merged;
  static int score(const Host& host, const Input& input) { return reader_zero::score(host, input); }
  static Result<Opened> open(const Host& host, const Input& input, const std::string& tag,
                             Weights weights, bool verify_crc) {
    return open_checkpoint(host, input, tag, weights, verify_crc);
  }
  static const auto& contents(const Opened& opened) { return opened.contents; }
};

constexpr const char* kFormats[] = {"zero", nullptr};
constexpr const char* kPatterns[] = {"*_optim_states.pt", "*_model_states.pt", nullptr};

}  // namespace

XD_EXPORT_PLUGINS(reader_plugin<deepspeed::CheckpointReader<Zero>>(
    {.id = "org.crossdock.reader.zero",
     .version = CROSSDOCK_VERSION,
     .summary = "reads DeepSpeed's checkpoints of ZeRO stages 1, 2 and 3, of any number of ranks",
     .caps = XD_CAP_CONCURRENT | XD_CAP_TRAINING_STATE,
     .formats = kFormats,
     .patterns = kPatterns,
     .options = deepspeed::reader_options::kAll}))

}  // namespace crossdock::reader_zero
