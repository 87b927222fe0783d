// The parts of a rule, found among the stored tensors and joined.
#pragma once

#include "core/rules/operations.h"
#include "core/rules/stored_names.h"

#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace crossdock::rules {

// More of them than any model has.
inline constexpr uint64_t kMaxExperts = 1'024;

// Visits what names stored tensors in a rule: parts that are no join of others. Stops at an error.
Result<void> for_each_leaf(const google::protobuf::RepeatedPtrField<pb::Part>& parts,
                           const std::function<Result<void>(const pb::Part&)>& visit);
// The first name of stored tensors in a part.
const std::string& first_name(const pb::Part& part);
// Whether names of it hold a '##' that no stack in it stands for.
bool has_free_expert(const pb::Part& part);

// What the source says of stored tensors that one is made of, as of the first: the extents and
// encodings of all, and a name that tells of all, or of a long list of the first and the last.
manifest::Tensor describe(const manifest::Manifest& m, const std::vector<uint64_t>& stored);

// For one tensor of a rule: the number of its layer and of its expert.
struct Place {
  uint64_t layer = kNoLayer, expert = 0;
};

// What joining found.
struct Joined {
  std::optional<Operand> operand;  // none where tensors are missing
  std::vector<uint64_t> stored;    // those that were found
  std::string missing;             // the first name that no stored tensor has
  uint64_t n_missing = 0;
};

class Parts {
 public:
  // All outlive it.
  Parts(const manifest::Manifest& m, const StoredNames& stored, const Operations& operations,
        const Variables& variables)
      : m_(m), stored_(stored), operations_(operations), variables_(variables) {}

  // Errors: parts that cannot be joined, operations that do not fit.
  Result<Joined> join(const pb::TensorRule& rule, Place place) const;
  // How many '##' there are: what the rule says, or as many as the file has of such names, at least
  // one.
  Result<uint64_t> count_experts(const pb::TensorRule& rule, const std::string& name,
                                 uint64_t layer) const;

 private:
  template <class Whole>  // a rule, or a part
  Result<std::optional<Operand>> join_parts(const pb::TensorRule& rule, const Whole& whole,
                                            Place place, Joined& found) const;
  Result<std::optional<Operand>> make(const pb::TensorRule& rule, const pb::Part& part, Place place,
                                      Joined& found) const;
  Result<std::optional<Operand>> leaf(const pb::Part& part, Place place, Joined& found) const;

  const manifest::Manifest& m_;
  const StoredNames& stored_;
  const Operations& operations_;
  const Variables& variables_;
};

}  // namespace crossdock::rules
