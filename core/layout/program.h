// How one tensor of the checkpoint is read from the stored ones: views of them, joined, and a
// change of each value.
#pragma once

#include "core/layout/gather.h"
#include "core/layout/view.h"

#include <crossdock/dtype.hpp>

#include <optional>
#include <string>
#include <vector>

namespace crossdock::layout {

struct Piece {
  uint64_t tensor = 0;  // of the stored ones
  View view;
};

struct Program {
  std::vector<Piece> pieces;  // joined along this dimension, which all have
  uint64_t join_dim = 0;
  // Then, to each value; F32 only.
  float add = 0;
  bool log_of_negated = false;

  // Whether it is the stored tensor itself; after prepare().
  bool is_plain() const { return plain_; }

  // `read`: of stored tensors, in their own order.
  using Read =
      std::function<Result<void>(uint64_t tensor, uint64_t begin, std::span<std::byte> out)>;
  // Elements [begin, begin + out.size() / elem_bytes). `scratch`: see gather.h. [any]
  Result<void> run(uint64_t elem_bytes, uint64_t begin, std::span<std::byte> out,
                   std::span<std::byte> scratch, const Read& read) const;

  // Makes the factors of all pieces, once these are complete.
  void prepare();

 private:
  struct Prepared {
    std::vector<Factor> factors;
    uint64_t inner = 1;  // elements for each step of the dimensions before the joined one
  };
  std::vector<Prepared> prepared_;
  bool plain_ = false;
};

}  // namespace crossdock::layout
