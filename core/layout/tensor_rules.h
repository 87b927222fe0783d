// The tensors of a layout: matches a source's names, and makes the program of each tensor of the checkpoint.
#pragma once

#include "core/layout/program.h"
#include "core/layout/variables.h"

namespace crossdock::layout {

// See lay_out: changes m's tensors and gives a program for each.
Result<std::vector<Program>> apply_tensor_rules(const rules::v1::Layout& layout, const Variables& variables,
                                                bool keep_unmatched, manifest::Manifest& m);

}  // namespace crossdock::layout
