// SPDX-License-Identifier: Apache-2.0

// What a rule's operations do to a tensor.
#pragma once

#include "core/rules/variables.h"
#include "core/transform/expression.h"

namespace crossdock::rules {

// A tensor on its way through the operations of a part or a rule: an expression, a view of it, and
// what is done to each value. Views of views are one, and a change of values commutes with them.
struct Operand {
  transform::Expression base;
  transform::View view;  // of the base
  std::vector<transform::Step> steps;
  struct Map {
    transform::Mapping mapping;
    float operand;
  };
  std::vector<Map> maps;

  static Operand of(transform::Expression whole);
  // A stored tensor in row-major order.
  static Operand stored(uint64_t index, const manifest::Tensor& t);
  // Errors: a change of values that are not F32.
  Result<transform::Expression> finish() &&;
};

class Operations {
 public:
  // Which outlive it.
  explicit Operations(const Variables& variables) : variables_(variables) {}

  // That there are the variables which they name; the values may differ with the layer.
  Result<void> check_bound(const google::protobuf::RepeatedPtrField<pb::Operation>& ops) const;
  // Errors: an operation that does not fit the shape, or is the rule's own.
  Result<void> apply(Operand& operand, const pb::Operation& op, uint64_t layer) const;

 private:
  Result<std::vector<uint64_t>> sizes(const google::protobuf::RepeatedPtrField<std::string>& texts,
                                      uint64_t whole, uint64_t layer) const;
  Result<std::string> unpermute(transform::View& view, const std::string& heads, bool back,
                                uint64_t layer) const;
  Result<std::string> change(transform::View& view, const pb::Operation& op, uint64_t layer) const;
  const Variables& variables_;
};

}  // namespace crossdock::rules
