// SPDX-License-Identifier: Apache-2.0

// A writer's plan: which objects it will make, of which sizes, from which tensors. Data only;
// convert/ checks and runs it.
#pragma once

#include <crossdock/plugin.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace crossdock::plugin {

struct PlanNeed {
  uint64_t tensor, begin, count;  // in elements
};

struct PlanItem {
  uint32_t object;
  uint32_t number;  // within its object
  std::vector<PlanNeed> needs;
  uint64_t out_bytes;  // that it writes, holes not counted
  uint64_t memory;     // that write_item allocates at most
};

struct PlanObject {
  std::string path;
  uint64_t size;       // or at most, where it is known only when the object is sealed
  uint32_t flags = 0;  // XD_OBJECT_...
  uint32_t n_items = 0;

  bool is_sized_at_seal() const { return flags & XD_OBJECT_SIZE_AT_SEAL; }
  bool is_in_order() const { return flags & XD_OBJECT_IN_ORDER; }
};

struct Plan {
  std::vector<PlanObject> objects;
  std::vector<PlanItem> items;
  std::vector<std::pair<std::string, uint64_t>> aux;  // path, index in the manifest's aux_files
  std::vector<std::pair<uint64_t, std::string>> excluded;  // tensor, reason
  std::vector<std::string> notes;
};

}  // namespace crossdock::plugin
