// SPDX-License-Identifier: Apache-2.0

// Parameters that a source holds under several names: one is written, the others are left out with
// a reason.
#pragma once

#include "core/base/memory.h"
#include "core/convert/tensor_source.h"

#include <atomic>
#include <string>
#include <vector>

namespace crossdock::convert {

// Which tensors of a model are one parameter, where no description of the job's module tells it.
struct OneParameter {
  // The class's or config.json's tied names: of each group the first is the parameter's own name.
  std::vector<manifest::AliasGroup> tied;
  // Tensors that the class has not: of names that share a storage they are the last choice.
  std::vector<uint64_t> unknown;
  // Names of the class that neither it nor config.json ties are parameters of their own then, also
  // where the source has one storage for them.
  bool is_class_known = false;
};

// Excludes from `target` all but one of the names that share a storage in the source, and of tied
// names all but the parameter's own, where the values are equal (else a note says so). Comparing
// takes two blocks of piece_bytes from the budget.
Result<void> exclude_tied(TensorSource& model, const OneParameter& known,
                          manifest::Manifest& target, uint64_t piece_bytes,
                          const std::atomic<bool>& cancelled, std::vector<std::string>& notes);

// Where the job's module is known (target.module), describe() has excluded what it ties; this
// checks that the excluded names hold the same values.
Result<void> check_tied(TensorSource& model, const manifest::Manifest& target, uint64_t piece_bytes,
                        const std::atomic<bool>& cancelled);

}  // namespace crossdock::convert
