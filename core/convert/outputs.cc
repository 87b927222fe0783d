#include "core/convert/outputs.h"

#include <utility>

namespace crossdock::convert {

Outputs::Outputs(io::Staging& staging, const Planned& planned)
    : staging_(staging), planned_(planned), objects_(planned.plan.objects.size()) {
  for (size_t i = 0; i < objects_.size(); ++i) {
    objects_[i].items_left = planned.plan.objects[i].n_items;
    objects_[i].results.resize(planned.plan.objects[i].n_items);
  }
}

// Objects are made when they are first written, so that a plan of 100,000 files has only as many
// open as there are threads.
Result<xd_object> Outputs::stage(uint32_t index) {
  Object& object = objects_[index];
  const std::lock_guard lock(object.mutex);
  if (!object.staged) {
    const plugin::PlanObject& planned = planned_.plan.objects[index];
    XD_TRY_SET(object.staged, staging_.create(planned.path, planned.size));
  }
  return xd_object{object.staged.get()};
}

Result<void> Outputs::write(const plugin::PlanItem& item) {
  XD_TRY_SET(xd_object handle, stage(item.object));
  Object& object = objects_[item.object];
  const std::string& path = planned_.plan.objects[item.object].path;
  XD_TRY(planned_.writer.write_item(item, path, handle, object.results[item.number]));
  // Whoever finishes the last item seals: by then all results are there.
  {
    const std::lock_guard lock(object.mutex);
    if (--object.items_left != 0) return {};
  }
  return seal(item.object);
}

Result<void> Outputs::seal(uint32_t index) {
  XD_TRY_SET(xd_object handle, stage(index));
  Object& object = objects_[index];
  XD_TRY(planned_.writer.seal(index, planned_.plan.objects[index].path, handle, object.results));
  XD_TRY_SET(object.digest, object.staged->seal());
  object.staged.reset();
  return {};
}

Result<void> Outputs::add_file(const std::string& path, uint64_t size,
                               const std::function<Result<void>(io::StagedObject&)>& write) {
  XD_TRY_SET(const auto object, staging_.create(path, size));
  XD_TRY(write(*object));
  XD_TRY_SET(std::string digest, object->seal());
  added_.push_back({path, size, std::move(digest)});
  return {};
}

std::vector<report::File> Outputs::files() const {
  std::vector<report::File> out;
  for (size_t i = 0; i < objects_.size(); ++i) {
    const plugin::PlanObject& planned = planned_.plan.objects[i];
    out.push_back({planned.path, planned.size, objects_[i].digest});
  }
  out.insert(out.end(), added_.begin(), added_.end());
  return out;
}

}  // namespace crossdock::convert
