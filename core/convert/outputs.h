// The objects of a conversion while they are written: what of each is there, what its items gave
// back, and the digests in the end.
#pragma once

#include "core/convert/planning.h"
#include "core/io/staging.h"
#include "core/report/report.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace crossdock::convert {

class Outputs {
 public:
  // Both outlive it.
  Outputs(io::Staging& staging, const Planned& planned);

  // Runs an item, whose tensors the calling thread may read now (tensor_service.h). The last item
  // of an object seals it. [any]
  Result<void> write(const plugin::PlanItem& item);
  // Of an object without items: the writer makes all of it when it is sealed. [any]
  Result<void> seal(uint32_t object);
  // A file that is written here and now. [one thread]
  Result<void> add_file(const std::string& path, uint64_t size,
                        const std::function<Result<void>(io::StagedObject&)>& write);

  // Once all are sealed: the plan's objects in its order, then what add_file() made.
  std::vector<report::File> files() const;

 private:
  // Its items may run on several threads.
  struct Object {
    std::mutex mutex;
    std::unique_ptr<io::StagedObject> staged;  // from its first use until it is sealed
    std::vector<xd_bytes> results;             // of its items, by their numbers
    uint32_t items_left = 0;
    std::string digest;
  };
  Result<xd_object> stage(uint32_t index);

  io::Staging& staging_;
  const Planned& planned_;
  std::vector<Object> objects_;
  std::vector<report::File> added_;
};

}  // namespace crossdock::convert
