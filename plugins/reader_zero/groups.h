// SPDX-License-Identifier: Apache-2.0

// The flat groups of a checkpoint: where each trained parameter's values and moments lie.
#pragma once

#include "plugins/common/segments.h"
#include "plugins/deepspeed/partition.h"
#include "plugins/reader_zero/states.h"

namespace crossdock::reader_zero {

class Groups {
 public:
  // Checks that the ranks' parts are the parameters that param_shapes lists. Borrows both.
  static Result<Groups> make(const States& states, const std::vector<manifest::File>& files);

  size_t size() const { return groups_.size(); }
  // Of parameter `i` of group `g`.
  common::Segments master(size_t g, size_t i) const;

  // What the optimizer keeps of each element: a state of the same size as the flat group.
  struct Moment {
    std::string key;
    std::vector<const Stored*> of_rank;  // null where the rank holds nothing of the group
    manifest::DType dtype;
  };
  // In the optimizer's order. Tensors of other sizes are no moments, and are added to `left_out`.
  Result<std::vector<Moment>> moments(size_t g, std::vector<std::string>& left_out) const;
  common::Segments moment(const Moment& moment, size_t g, size_t i) const;

 private:
  struct Group {
    std::vector<Pieces> pieces;  // of each parameter
    std::vector<bool> is_held;   // by rank: whether it has a piece
  };

  Groups(const States& states, const std::vector<manifest::File>& files)
      : states_(&states), files_(&files) {}
  const std::string& file_of(const Stored& stored) const { return (*files_)[stored.file].name; }
  Result<Group> cut(size_t g) const;
  Result<bool> place(size_t g, Moment& moment) const;
  bool fits(size_t g, size_t rank, const Stored& state) const;

  const States* states_;
  const std::vector<manifest::File>* files_;
  std::vector<Group> groups_;
};

}  // namespace crossdock::reader_zero
