// SPDX-License-Identifier: Apache-2.0

// A quantised model as its schemes look at it: codes and what belongs to them, by their names, and
// what config.json says of them.
#pragma once

#include "core/rules/layout.h"
#include "core/transform/expression.h"

#include <crossdock/manifest_wire.hpp>

#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

namespace crossdock::quantised {

// What config.json's quantization_config says, as far as the tensors do not.
struct Config {
  std::string method;          // "fp8", "compressed-tensors"; empty: no such config
  std::vector<uint64_t> bits;  // of a code; one for each group of compressed-tensors
  std::vector<uint64_t> group_sizes;
  std::vector<uint64_t> block;    // rows and columns of a block; empty: not told
  std::string checkpoint_format;  // of GPTQ
  bool is_of_gptqmodel = false;   // which wrote it
  std::string unreadable;         // what it says that no scheme here reads; empty: nothing
};

class Parts {
 public:
  // All outlive it. `made` has an expression for each tensor of `m`, or none at all: then they are
  // stored ones, of which `read` reads.
  Parts(const manifest::Manifest& m, const std::vector<transform::Expression>& made,
        const rules::ReadTensor& read, manifest::DType result);

  const Config& config() const { return config_; }
  bool has_config() const { return m_.source.config.kind.index() != 0; }  // of any content
  manifest::DType result() const { return result_; }                      // the type of values

  const manifest::Tensor& tensor(uint64_t i) const { return m_.tensors[i]; }
  std::optional<uint64_t> find(const std::string& name) const;
  // Errors: there is none, which belongs to tensor `of`.
  Result<uint64_t> need(const std::string& name, uint64_t of) const;
  transform::Expression expression(uint64_t i) const;

  // All elements of a small tensor. Errors: one that is large, or of another type.
  Result<std::string> bytes(uint64_t i) const;
  Result<std::vector<float>> floats(uint64_t i) const;      // F32
  Result<std::vector<int64_t>> integers(uint64_t i) const;  // I32, I64

 private:
  const manifest::Manifest& m_;
  const std::vector<transform::Expression>& made_;
  const rules::ReadTensor& read_;
  const manifest::DType result_;
  Config config_;
  std::unordered_map<std::string_view, uint64_t> by_name_;
};

// A weight as the plain model has it.
struct Weight {
  std::string name;
  std::string scheme;        // "FP8 blocks of 128x128"
  std::vector<uint64_t> of;  // the codes, and what belongs to them
  transform::Expression values;
};

// A tensor seen as matrices: leading dimensions in one.
struct Matrices {
  uint64_t count = 1, rows = 1, columns = 1;
};
Matrices matrices_of(std::span<const uint64_t> shape);

// How codes become values by scales of such a shape: one for all, for each matrix, for each row, or
// for blocks by rows and columns. `told` are a block's rows and columns where config.json tells
// them, which count where they give as many blocks; else blocks divide the matrix evenly, or are of
// a usual size. Errors: there are no such blocks.
Result<transform::Dequantisation> by_blocks(std::shared_ptr<const transform::Decoder> decoder,
                                            const Matrices& codes, std::span<const uint64_t> scales,
                                            std::span<const uint64_t> told = {});

}  // namespace crossdock::quantised
