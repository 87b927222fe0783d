// What a rule's operations do to the view of a tensor.
#pragma once

#include "core/layout/variables.h"
#include "core/layout/view.h"

namespace crossdock::layout {

class Operations {
 public:
  // Which outlive it.
  explicit Operations(const Variables& variables) : variables_(variables) {}

  // That the metadata has what they name; the values may differ with the layer.
  Result<void> check_bound(const google::protobuf::RepeatedPtrField<pb::Operation>& ops) const;
  // Errors: an operation that does not fit the shape, or is none on a shape.
  Result<void> change(View& view, const pb::Operation& op, uint64_t layer) const;
  // A stored tensor, as a rule's part has it.
  Result<View> view_of(const manifest::Tensor& t, const pb::Part& part, uint64_t layer) const;

 private:
  Result<std::vector<uint64_t>> sizes(const google::protobuf::RepeatedPtrField<std::string>& texts,
                                      uint64_t whole, uint64_t layer) const;
  Result<void> unpermute(View& view, const std::string& heads, uint64_t layer) const;
  const Variables& variables_;
};

}  // namespace crossdock::layout
