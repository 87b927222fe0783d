// SPDX-License-Identifier: Apache-2.0

// The parts of a rule, found among the stored tensors and joined.
#pragma once

#include "core/rules/numbers.h"
#include "core/rules/operations.h"

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
// All names of stored tensors in a part.
std::vector<std::string> names_of(const pb::Part& part);
// The first name of stored tensors in a part.
const std::string& first_name(const pb::Part& part);
// Whether names of it hold a number of this depth that no stack in it runs over.
bool has_free_number(const pb::Part& part, size_t depth);

// What the source says of stored tensors that one is made of, as of the first: the extents and
// encodings of all, and a name that tells of all, or of a long list of the first and the last.
manifest::Tensor joined_source(const manifest::Manifest& m, const std::vector<uint64_t>& stored);

// The numbers of one tensor of a rule, by depth: that of its layer (or kNoLayer) is the first.
struct Place {
  Numbers numbers;
  uint64_t layer() const { return numbers.empty() ? kNoLayer : numbers[0]; }
};

// The number that the parts of a stack run over (experts).
struct Running {
  size_t depth = 1;
  std::string count;  // how many there are, as of Variable; empty: as many as there are
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
  using Find = std::function<std::optional<uint64_t>(const std::string& name)>;
  // Of a tensor that was found, before its part's own operations.
  using Make = std::function<Result<Operand>(uint64_t tensor)>;

  // `m`, `operations` and `variables` outlive it.
  Parts(const manifest::Manifest& m, Find find, Make make, const Operations& operations,
        const Variables& variables)
      : m_(m),
        find_(std::move(find)),
        make_(std::move(make)),
        operations_(operations),
        variables_(variables) {}

  // What a rule for one tensor, or a part, makes there. Errors: parts that cannot be joined,
  // operations that do not fit.
  Result<Joined> join(const pb::TensorRule& rule, const Running& running, const Place& place) const;
  Result<Joined> join(const pb::Part& part, const Running& running, const Place& place) const;
  // How many numbers there are of such names: as `running` says, or as many as the file has from 0
  // on, at least one.
  Result<uint64_t> count(const Running& running, const std::string& name, Place place) const;

 private:
  template <class Whole>  // a rule, or a part
  Result<std::optional<Operand>> join_parts(const Whole& whole, const Running& running,
                                            const Place& place, Joined& found) const;
  Result<std::optional<Operand>> make(const pb::Part& part, const Running& running,
                                      const Place& place, Joined& found) const;
  Result<std::optional<Operand>> leaf(const pb::Part& part, const Place& place,
                                      Joined& found) const;

  const manifest::Manifest& m_;
  const Find find_;
  const Make make_;
  const Operations& operations_;
  const Variables& variables_;
};

}  // namespace crossdock::rules
