// SPDX-License-Identifier: Apache-2.0

// The tensors of a model by ranges of their elements: an open model's own, or what layout rules
// make of them.
#pragma once

#include "core/convert/open_model.h"
#include "core/rules/compose.h"
#include "core/rules/layout.h"

namespace crossdock::convert {

class TensorSource {
 public:
  // `m` is what the model says of itself, or what lay_out() made of that and then `made` of it: one
  // expression for each of its tensors, or none at all; `stored` are those that the expressions
  // speak of. `model` outlives it.
  TensorSource(OpenModel& model, manifest::Manifest m, std::vector<transform::Expression> made = {},
               std::vector<manifest::Tensor> stored = {});

  // The tensors as compose() makes them for such names; `m` is the model with the same tensors and
  // its own names, and gets the new ones too.
  Result<rules::Composed> compose(const rules::ModuleRule& rule, rules::Names names,
                                  manifest::Manifest& m) const;
  // Takes what compose() made.
  void take(rules::Composed composed, const manifest::Manifest& m);

  // The conversion works on a copy whose tensors have the same indexes.
  const manifest::Manifest& manifest() const { return manifest_; }
  plugin::Host& host() { return model_.host(); }
  const OpenModel& model() const { return model_; }
  // The reader's own tensors, and how those of the manifest are made of them: none when they are
  // these, under the same indexes.
  std::span<const manifest::Tensor> stored() const {
    return stored_.empty() ? manifest_.tensors : stored_;
  }
  const std::vector<transform::Expression>& expressions() const { return expressions_; }

  // Dense values of elements [begin, begin + count) in the manifest's own type. [any]
  Result<void> read(uint64_t tensor, uint64_t begin, uint64_t count, std::span<std::byte> out);
  // Whether few large ranges of it cost less than many small ones.
  bool likes_large_reads(uint64_t tensor) const;
  // A stored tensor that it is made of and that the reader had better read from its start to its
  // end, if there is one.
  std::optional<uint64_t> sequential_of(uint64_t tensor) const;
  // What read() needs of the budget for a moment, the reader's part among it.
  uint64_t scratch_bytes() const;

 private:
  // What laying out one tensor takes of the budget.
  uint64_t gather_bytes() const;

  OpenModel& model_;
  manifest::Manifest manifest_;
  // One for each tensor; none when all are stored ones under the same indexes.
  std::vector<transform::Expression> expressions_;
  std::vector<manifest::Tensor> stored_;  // as the reader has them; empty: they are the manifest's
  bool gathers_ = false;                  // any of the expressions needs scratch
};

// Reads what config.json is made from, for lay_out().
rules::ReadTensor reader_of(OpenModel& model);

}  // namespace crossdock::convert
