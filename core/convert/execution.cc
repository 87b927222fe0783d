#include "core/convert/execution.h"

#include "core/convert/scheduler.h"
#include "core/convert/tensor_service.h"

#include <algorithm>

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

std::vector<Task> all_tasks(const plugin::Plan& plan) {
  std::vector<Task> tasks;
  for (const plugin::PlanItem& item : plan.items) tasks.push_back({item.object, &item});
  std::stable_sort(tasks.begin(), tasks.end(), [](const Task& a, const Task& b) {
    return a.item->out_bytes > b.item->out_bytes;
  });
  for (uint32_t i = 0; i < plan.objects.size(); ++i) {
    if (plan.objects[i].n_items == 0) tasks.push_back({i, nullptr});
  }
  return tasks;
}

Result<void> execute(Session& session, const Prepared& prepared, const Planned& planned,
                     std::span<const Task> tasks, Outputs& outputs, TensorDigests& digests,
                     const Progress& progress) {
  TensorService service(*prepared.tensors, digests, session.window_bytes());
  const ServiceInUse in_use(session.host, service);

  // Beside its own buffers an item takes the window that it reads through, and scratch.
  Schedule schedule;
  schedule.threads = session.request.threads;
  uint64_t total = 0;
  for (const Task& task : tasks) {
    schedule.memory.push_back(task.item ? task.item->memory + planned.reading_bytes : 0);
    total += task.item ? task.item->out_bytes : 0;
  }
  schedule.run = [&](size_t i) -> Result<void> {
    const Task& task = tasks[i];
    if (!task.item) return outputs.seal(task.object);
    const TensorService::ItemScope scope(service, *task.item);
    return outputs.write(*task.item);
  };
  schedule.on_tick = [&] {
    if (progress) progress(std::min(session.host.done_bytes(), total), total);
  };
  XD_TRY(run_schedule(schedule, session.memory, session.cancelled));
  if (progress) progress(total, total);
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

Result<void> copy_aux_files(Session& session, const Prepared& prepared, const Planned& planned,
                            Outputs& outputs) {
  const base::Block piece(session.memory, session.window_bytes());
  if (!piece.data) return Error{XD_NO_MEMORY, "expected room to copy a file: raise --memory"};
  for (const auto& [path, aux] : planned.plan.aux) {
    const manifest::AuxFile& file = prepared.target.aux_files[aux];
    const uint64_t size = prepared.source->aux_size(file);
    XD_TRY(outputs.add_file(path, size, [&](io::StagedObject& object) -> Result<void> {
      for (uint64_t at = 0; at < size;) {
        const uint64_t n = std::min(session.window_bytes(), size - at);
        XD_TRY(prepared.source->read_aux(file, at, {piece.data, n}));
        XD_TRY(object.write(at, {piece.data, n}));
        at += n;
        if (session.cancelled) return Error{XD_CANCELLED, "cancelled"};
      }
      return {};
    }));
  }
  return {};
}

}  // namespace crossdock::convert
