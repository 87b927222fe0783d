// SPDX-License-Identifier: Apache-2.0

// org.crossdock.reader.universal: reads DeepSpeed's universal checkpoints, those of its
// ds_to_universal.py and those of crossdock.
//
// open() reads directories and pickles only, one file at a time; a tensor is then a range of one
// file. What open() made is immutable, so reads may run concurrently.
#include "plugins/deepspeed/reader.h"
#include "plugins/reader_universal/checkpoint.h"
#include "plugins/reader_universal/files.h"

namespace crossdock::reader_universal {

namespace {

struct Universal {
  using Opened = Checkpoint;
  static int score(const Host& host, const Input& input) {
    return reader_universal::score(host, input);
  }
  static Result<Opened> open(const Host& host, const Input& input, const std::string& tag,
                             Weights weights, bool verify_crc) {
    return open_checkpoint(host, input, tag, weights, verify_crc);
  }
  static const auto& contents(const Opened& opened) { return opened.segments; }
};

constexpr const char* kFormats[] = {"universal", nullptr};
constexpr const char* kPatterns[] = {"*_model_states.pt", nullptr};

}  // namespace

XD_EXPORT_PLUGINS(reader_plugin<deepspeed::CheckpointReader<Universal>>(
    {.id = "org.crossdock.reader.universal",
     .version = CROSSDOCK_VERSION,
     .summary = "reads DeepSpeed's universal checkpoints, of ds_to_universal.py or of crossdock",
     .caps = XD_CAP_CONCURRENT | XD_CAP_TRAINING_STATE,
     .formats = kFormats,
     .patterns = kPatterns,
     .options = deepspeed::reader_options::kAll}))

}  // namespace crossdock::reader_universal
