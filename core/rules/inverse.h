// SPDX-License-Identifier: Apache-2.0

// The way back: from a parameter of the module to the tensors that files hold of it.
#pragma once

#include "core/rules/parts.h"

#include <map>
#include <string>
#include <vector>

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

// The pieces of all parameters, joined to the files' tensors.
class FilePieces {
 public:
  // `of`: the parameter, by its index.
  void add(uint64_t of, FilePiece piece) { pieces_[piece.name].push_back({of, std::move(piece)}); }

  struct FileTensor {
    std::string name;
    std::vector<uint64_t> of;  // parameters
    transform::Expression expression;
  };
  // By name. Errors: a tensor some of whose pieces lack.
  Result<std::vector<FileTensor>> join() &&;

 private:
  struct Piece {
    uint64_t of;
    FilePiece piece;
  };
  static Result<transform::Expression> join(const std::string& name, std::vector<Piece>& pieces);
  std::map<std::string, std::vector<Piece>> pieces_;
};

}  // namespace crossdock::rules
