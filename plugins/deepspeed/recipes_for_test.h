// SPDX-License-Identifier: Apache-2.0

// What recipes of DeepSpeed's files are made of, for the tests and fuzzers of those who read them.
//
// Elements are texts of four bytes, "a000", "a001", ..., so that what is read shows where it came
// from.
#pragma once

#include "plugins/torch/read/recipes_for_test.h"

#include <string>
#include <vector>

namespace crossdock::deepspeed::recipe {

using namespace torch_read::recipe;

// Between the pickles of a fuzzer's input.
inline constexpr std::string_view kBetween = "\n====\n";

// Elements `begin` to `end` - 1 of a tensor that is called by a letter.
inline std::string elements(char tensor, int begin, int end) {
  std::string out;
  for (int i = begin; i < end; ++i) {
    const std::string digits = std::to_string(1000 + i);
    out += tensor + digits.substr(1);
  }
  return out;
}

// A value of a pickle, and the storages that it names: their keys are numbers in order.
class File {
 public:
  // `root`: as torch.save calls that of a file object.
  explicit File(std::string root = "archive") : root_(std::move(root)) {}

  // A flat float32 tensor of these bytes.
  std::string flat(const std::string& bytes) {
    const auto n = static_cast<int64_t>(bytes.size() / 4);
    return tensor(stored(bytes, n), 0, {n}, {1});
  }
  std::string scalar(float value) {
    std::string bytes;
    put_le(bytes, std::bit_cast<uint32_t>(value));
    return tensor(stored(bytes, 1), 0, {}, {});
  }
  std::string of_shape(const std::string& bytes, std::initializer_list<int64_t> shape,
                       std::initializer_list<int64_t> strides) {
    return tensor(stored(bytes, static_cast<int64_t>(bytes.size() / 4)), 0, shape, strides);
  }
  std::string stored(const std::string& bytes, int64_t n) {
    storages_.push_back({std::to_string(storages_.size()), bytes});
    return storage(storages_.back().key, n);
  }
  // The file; or the pickle alone.
  std::string made_of(const std::string& value, bool pickle_alone) const {
    return pickle_alone ? pickle(value) : torch_zip(value, storages_, false, "little", root_);
  }

 private:
  std::string root_;
  std::vector<torch_read::recipe::Stored> storages_;
};

inline std::string stage_enum(int stage) {
  return call(global("deepspeed.runtime.zero.config", "ZeroStageEnum"), {number(stage)});
}
inline std::string scaler() {
  return global("deepspeed.runtime.fp16.loss_scaler", "LossScaler") + ")\x81" +
         dict({text("cur_scale"), real(1), text("dynamic"), "\x89"}) + "b";
}
inline std::string shape(std::initializer_list<int64_t> sizes) {
  return call(global("torch", "Size"), {numbers(sizes)});
}

}  // namespace crossdock::deepspeed::recipe
