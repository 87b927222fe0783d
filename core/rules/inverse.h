// The way back: from a parameter of the module to the tensors that files hold of it.
#pragma once

#include "core/rules/parts.h"

namespace crossdock::rules {

// A tensor of a file, or a piece of one that several parameters are cut from.
struct FilePiece {
  std::string name;
  Operand operand;  // of the parameter
  pb::Chunk chunk;  // which piece of the tensor it is; of == 0: all of it
};

// `whole` is the parameter that `from` (see Parameter.from) makes; `numbers` are its name's.
// Errors: an operation that has no inverse, a shape that does not fit.
Result<std::vector<FilePiece>> invert(const pb::Part& from, Operand whole, const Numbers& numbers,
                                      const Operations& operations, const Variables& variables);

}  // namespace crossdock::rules
