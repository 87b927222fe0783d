#include "core/convert/execution.h"

#include "core/convert/scheduler.h"
#include "core/convert/tensor_service.h"

#include <algorithm>
#include <utility>

namespace crossdock::convert {

namespace {

// While it lives, plugins read tensors through the service.
class ServiceInUse {
 public:
  ServiceInUse(plugin::Host& host, TensorService& service) : host_(host) {
    host_.tensor_read = [&service](const xd_range& range, std::span<std::byte> out) {
      return service.read(range, out);
    };
    host_.tensor_view = [&service](const xd_range& range, xd_view* out, xd_error* err) {
      return service.view(range, out, err);
    };
  }
  ~ServiceInUse() {
    host_.tensor_read = nullptr;
    host_.tensor_view = nullptr;
  }
  ServiceInUse(const ServiceInUse&) = delete;
  ServiceInUse& operator=(const ServiceInUse&) = delete;

 private:
  plugin::Host& host_;
};

}  // namespace

std::vector<Task> tasks_of(const plugin::Plan& plan, const Outputs& outputs,
                           const std::vector<bool>& wanted) {
  std::vector<Task> tasks;
  std::vector<bool> has_items(outputs.size());
  for (const plugin::PlanItem& item : plan.items) {
    if (!wanted[item.object] || outputs.is_done(item)) continue;
    tasks.push_back({item.object, &item});
    has_items[item.object] = true;
  }
  std::stable_sort(tasks.begin(), tasks.end(), [](const Task& a, const Task& b) {
    return a.item->out_bytes > b.item->out_bytes;
  });
  for (uint64_t file = 0; file < outputs.size(); ++file) {
    if (wanted[file] && !has_items[file] && !outputs.is_done(file))
      tasks.push_back({file, nullptr});
  }
  return tasks;
}

namespace {

Result<void> run_item(TensorService& service, const plugin::PlanItem& item, Outputs& outputs) {
  Outputs::Item done;
  {
    const TensorService::ItemScope scope(service, item);
    XD_TRY_SET(done, outputs.write(item));
  }
  return outputs.finish(item, std::move(done));
}

// What the caller is told once a task is done.
void tell(const Session& session, const Task& task, const plugin::Plan& plan,
          const Outputs& outputs) {
  if (!session.callbacks.written) return;
  const std::string& path = outputs.path(task.file);
  if (task.item)
    session.callbacks.written(
        {path, task.item->number, plan.objects[task.file].n_items, task.item->out_bytes});
  if (outputs.is_done(task.file)) session.callbacks.written({path, 0, 0, outputs.bytes(task.file)});
}

Result<void> copy_file(Session& session, uint64_t file, Outputs& outputs) {
  const base::Block piece(session.memory, session.window_bytes());
  if (!piece.data) return Error{XD_NO_MEMORY, "expected room to copy a file: raise --memory"};
  return outputs.copy(file, {piece.data, session.window_bytes()}, session.cancelled);
}

}  // namespace

Result<void> execute(Session& session, const Prepared& prepared, const Planned& planned,
                     std::span<const Task> tasks, uint64_t before, Outputs& outputs,
                     TensorDigests& digests) {
  TensorService service(*prepared.tensors, digests, session.window_bytes());
  const ServiceInUse in_use(session.host, service);
  const size_t n_objects = planned.plan.objects.size();

  // Beside its own buffers an item takes the window that it reads through, and scratch.
  Schedule schedule;
  schedule.threads = session.request.threads;
  uint64_t total = 0;
  for (const Task& task : tasks) {
    const uint64_t copying = task.file >= n_objects ? session.window_bytes() : 0;
    schedule.memory.push_back(task.item ? task.item->memory + planned.reading_bytes : copying);
    total += task.item ? task.item->out_bytes : 0;
  }
  schedule.run = [&](size_t i) -> Result<void> {
    const Task& task = tasks[i];
    XD_TRY(task.item               ? run_item(service, *task.item, outputs)
           : task.file < n_objects ? outputs.seal(task.file)
                                   : copy_file(session, task.file, outputs));
    tell(session, task, planned.plan, outputs);
    return {};
  };
  schedule.activities = &session.activities;
  schedule.name = [&](size_t i) {
    const std::string& path = outputs.path(tasks[i].file);
    return tasks[i].item ? cat(path, " ", tasks[i].item->number) : path;
  };
  const auto& progress = session.callbacks.progress;
  schedule.on_tick = [&] {
    if (progress)
      progress(before + std::min(session.host.done_bytes(), total), before + total, before);
  };
  XD_TRY(run_schedule(schedule, session.memory, session.cancelled));
  if (progress) progress(before + total, before + total, before);
  return {};
}

Result<void> digest_others(Session& session, const Prepared& prepared, TensorDigests& digests) {
  std::vector<uint64_t> others;
  for (uint64_t i = 0; i < digests.size(); ++i) {
    if (!digests[i].missing().empty()) others.push_back(i);
  }
  Schedule schedule;
  schedule.threads = session.request.threads;
  schedule.memory.assign(others.size(), kDigestMemory + prepared.tensors->scratch_bytes());
  schedule.run = [&](size_t task) {
    return read_missing(*prepared.tensors, others[task], digests[others[task]], session.cancelled);
  };
  return run_schedule(schedule, session.memory, session.cancelled);
}

}  // namespace crossdock::convert
