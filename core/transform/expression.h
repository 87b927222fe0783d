// SPDX-License-Identifier: Apache-2.0

// A tensor of the target as an expression of stored ones: a small typed tree that is evaluated by
// ranges of elements, so that no tensor is ever held whole.
//
//   stored         elements as the reader gives them: read straight into the caller's buffer
//   view           other elements of a node in another order (view.h)
//   concat         nodes one after the other along a dimension; a stack is the same of views that
//                  have one dimension more
//   map            each value changed
//   dequantised    codes with their scales and zeros, which are children of types of their own
//
// The cast to the type that a writer asks for is no node: it stands above the root, in the tensor
// service, for a digest is of the values before it. A new kind of node is a struct among Node's, a
// maker, and a case in evaluate() and in text().
#pragma once

#include "core/transform/decoder.h"
#include "core/transform/gather.h"
#include "core/transform/view.h"

#include <crossdock/manifest_wire.hpp>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace crossdock::transform {

// An operation of a view, for the text: "split" with "0, [4, 2]".
struct Step {
  std::string name, arguments;
  bool operator==(const Step&) const = default;
};

// kAddWord is of I32, modulo 2^32; the others are of F32.
enum class Mapping { kAdd, kLogOfNegated, kAddWord };

struct Node {
  struct Stored {
    uint64_t tensor = 0;  // by its index in the source's manifest
    bool operator==(const Stored&) const = default;
  };
  struct Viewed {
    uint32_t of = 0;
    std::vector<Factor> factors;
    uint64_t offset = 0;
    std::vector<Step> steps;  // that made it
    bool operator==(const Viewed&) const = default;
  };
  struct Concat {
    std::vector<uint32_t> of;
    uint64_t dim = 0;
    std::vector<uint64_t> inner;  // elements of each for every step of the dimensions before `dim`
    uint64_t whole = 0;           // their sum
    bool operator==(const Concat&) const = default;
  };
  struct Map {
    uint32_t of = 0;
    Mapping mapping = Mapping::kAdd;
    float operand = 0;  // of kAdd
    uint32_t word = 0;  // of kAddWord
    bool operator==(const Map&) const = default;
  };
  // Of `rows` x `columns` codes, as many matrices as there are; how it is computed is told by
  // Dequantisation.
  struct Dequantised {
    uint32_t codes = 0;
    std::optional<uint32_t> zeros, scales, groups;
    std::shared_ptr<const Decoder> decoder;
    uint64_t rows = 1, columns = 1;
    uint64_t row_codes = 0;  // elements of the codes' node for a row
    uint64_t block_rows = 1, block_columns = 1;
    uint64_t scale_rows = 1, scale_columns = 1;  // of a matrix
    bool divides = false;
    float factor = 1;
    manifest::DType scale = manifest::DType::F32, product = manifest::DType::F32;
    bool operator==(const Dequantised&) const = default;
  };

  manifest::DType dtype = manifest::DType::UNSPECIFIED;
  std::vector<uint64_t> shape;
  std::variant<Stored, Viewed, Concat, Map, Dequantised> what;
  uint32_t scratch_blocks = 0;  // of what runs one inside the other, here and below
  bool operator==(const Node&) const = default;
};

// Fills `out` with elements [begin, begin + count) of a stored tensor.
using ReadStored = std::function<Result<void>(uint64_t tensor, uint64_t begin, uint64_t count,
                                              std::span<std::byte> out)>;

class Expression;

// How codes become values: ((code - zero) * scale) * factor, each operation rounded to float, the
// last to `product` and then to the result's type. Scales are rounded to `scale` first.
//
// Codes are matrices of `rows` x `columns`, each row in elements of its own. Zeros and scales are
// values for blocks of them: as many matrices as the codes are of ceil(rows / block_rows) x
// ceil(columns / block_columns), so the last blocks may be short. Where there are `groups`, they
// tell of each column whose column of the scales it has.
struct Dequantisation {
  std::shared_ptr<const Decoder> decoder;
  uint64_t rows = 1, columns = 1;
  uint64_t block_rows = 1, block_columns = 1;
  bool divides = false;  // by the scale
  float factor = 1;
  manifest::DType scale = manifest::DType::F32, product = manifest::DType::F32;  // or BF16, F16
};

inline constexpr uint64_t kMinBlock = 16 << 10;

// An immutable value; its elements are of whole bytes, but for those of a stored tensor alone.
class Expression {
 public:
  static Expression stored(uint64_t tensor, manifest::DType dtype, std::vector<uint64_t> shape);
  // `view` is of `of`'s elements. One that changes nothing gives `of` itself.
  static Expression view(Expression of, const View& view, std::vector<Step> steps);
  // Errors: shapes that differ in more than the joined dimension, types that differ.
  static Result<Expression> concat(std::vector<Expression> of, uint64_t dim);
  // Errors: values that are not of the type in which the mapping computes.
  static Result<Expression> map(Expression of, Mapping mapping, float operand = 0,
                                uint32_t word = 0);
  // Values of `dtype` and `shape`, which has as many elements as there are codes. They, zeros and
  // scales are F32, BF16 or F16; groups are I32 below the columns of scales, as reading them sees.
  // Errors: sizes that do not fit each other, or that overflow; other types.
  struct Operands;
  static Result<Expression> dequantise(Operands operands, const Dequantisation& how,
                                       manifest::DType dtype, std::vector<uint64_t> shape);

  // Children come before their parents, so the root is the last.
  const std::vector<Node>& nodes() const { return nodes_; }
  const Node& root() const { return nodes_.back(); }
  // The tensor that it is, when it is a stored one as the reader gives it; else nullptr.
  const Node::Stored* as_stored() const { return std::get_if<Node::Stored>(&root().what); }
  // All that it is made of, each once, in order.
  std::vector<uint64_t> tensors() const;

  // Whether evaluate() needs scratch: one element at least for each of so many blocks. Where
  // anything is dequantised, kMinBlock bytes, which lasts for 600 groups of columns; of more a row
  // of scales must have room. The more there is, the fewer reads.
  uint32_t scratch_blocks() const { return root().scratch_blocks; }
  // Whether computed values are put into another order: then each range takes all that they are
  // computed of, and few large ranges cost less than many small ones.
  bool reorders_values() const;
  // Fills `out` with elements from `begin` on. [any]
  Result<void> evaluate(uint64_t begin, std::span<std::byte> out, std::span<std::byte> scratch,
                        const ReadStored& read) const;

  bool operator==(const Expression&) const = default;
  // "concat(0, a, transpose(b))": the same for the same expression, with names of the source.
  std::string text(std::span<const manifest::Tensor> source) const;

 private:
  std::string text_of(uint32_t index, std::span<const manifest::Tensor> source,
                      size_t but_steps = 0) const;
  uint32_t take_in(Expression other);
  std::vector<Node> nodes_;
};

struct Expression::Operands {
  Expression codes;
  std::optional<Expression> zeros, scales, groups;
};

// A tensor of the source, as reading it counts elements: its own, or where it has strides those of
// its storage.
Expression stored_elements(uint64_t index, const manifest::Tensor& t);
// Its elements among those; for a tensor with strides the step that the view stands for.
View stored_view(const manifest::Tensor& t);
std::vector<Step> stored_steps(const manifest::Tensor& t);
// Both: the tensor's own elements in row-major order.
Expression stored_tensor(uint64_t index, const manifest::Tensor& t);

// Puts down in `t` how it is made of `source`, if it is not a stored tensor as the reader gives it.
// Its strides then have been seen to.
void describe(const Expression& expression, std::span<const manifest::Tensor> source,
              manifest::Tensor& t);

}  // namespace crossdock::transform
