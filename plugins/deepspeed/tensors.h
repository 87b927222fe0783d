// SPDX-License-Identifier: Apache-2.0

// A checkpoint's tensors as a manifest has them, and where the values of each lie: put together
// name by name.
#pragma once

#include "plugins/common/segments.h"
#include "plugins/deepspeed/names.h"

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace crossdock::deepspeed {

struct Checkpoint {
  manifest::Manifest manifest;             // without what lies beside the checkpoint
  std::vector<common::Segments> segments;  // of each tensor; with strides of its storage
  std::vector<Source> sources;             // by the manifest's number of the file
};

enum class Weights { kMaster, kModel };  // the optimizer's, or the job's own copy

using TensorIndex = std::map<std::string_view, uint64_t>;  // of the manifest's, by name

class Tensors {
 public:
  // `out`: whose tensors, alias groups and module these become. Borrows it; names are borrowed from
  // the model states.
  explicit Tensors(Checkpoint& out) : out_(out) {}

  void add(const Name& name, manifest::DType dtype, const std::vector<uint64_t>& shape,
           common::Segments segments);
  void add_stored(const Name& name, const Stored& stored);
  // The job's own copy of a parameter. An error where the module's state has none of its shape.
  Result<void> add_copy(const Name& name);
  // Another name of one that was added; false where that was not.
  bool add_tied(const Name& name);
  // Of a parameter that was added.
  void add_moment(const std::string& kind, std::string_view parameter,
                  const std::vector<uint64_t>& shape, const Stored& stored);
  // The module's names, parameters first, of those that were added.
  void add_module(std::span<const Name> in_order);

  const TensorIndex& index() const { return index_; }

 private:
  manifest::Tensor& push(std::string name, manifest::DType dtype,
                         const std::vector<uint64_t>& shape);
  void place(const Stored& stored, manifest::Tensor& tensor);

  Checkpoint& out_;
  TensorIndex index_;
  std::map<uint64_t, size_t> alias_groups_;  // by the kept tensor
};

// A frozen parameter of stages 1 and 2, or of stage 3, where each of `ranks` has a part.
Result<void> add_frozen(const Name& name, const RankStates& first, Tensors& out);
Result<void> add_fragments(const Name& name, std::span<const RankStates> ranks, Tensors& out);

}  // namespace crossdock::deepspeed
