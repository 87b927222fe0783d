// SPDX-License-Identifier: Apache-2.0
#include "core/convert/execution.h"

#include "core/convert/scheduler.h"
#include "core/convert/tensor_service.h"

#include <algorithm>
#include <numeric>
#include <unordered_map>
#include <utility>

namespace crossdock::convert {

namespace {

// Items that one thread does one after the other: those of an object in order, and those that read
// a tensor from its start to its end. A union-find over the plan's items.
class Chains {
 public:
  Chains(const plugin::Plan& plan, const TensorSource& tensors) : parents_(plan.items.size()) {
    std::iota(parents_.begin(), parents_.end(), size_t{0});
    std::unordered_map<uint64_t, size_t> of_tensor, of_object;
    const auto join = [this](std::unordered_map<uint64_t, size_t>& firsts, uint64_t key, size_t i) {
      const auto [it, is_new] = firsts.emplace(key, i);
      if (!is_new) parents_[root(i)] = root(it->second);
    };
    for (size_t i = 0; i < plan.items.size(); ++i) {
      const plugin::PlanItem& item = plan.items[i];
      if (plan.objects[item.object].is_in_order()) join(of_object, item.object, i);
      for (const plugin::PlanNeed& need : item.needs) {
        if (const auto stored = tensors.sequential_of(need.tensor)) join(of_tensor, *stored, i);
      }
    }
  }
  size_t root(size_t i) {
    while (parents_[i] != i) i = parents_[i] = parents_[parents_[i]];
    return i;
  }

 private:
  std::vector<size_t> parents_;
};

}  // namespace

uint64_t out_bytes(const Task& task) {
  uint64_t sum = 0;
  for (const plugin::PlanItem* item : task.items) sum += item->out_bytes;
  return sum;
}

std::vector<Task> tasks_of(const plugin::Plan& plan, const TensorSource& tensors,
                           const Outputs& outputs, const std::vector<bool>& wanted) {
  std::vector<Task> tasks;
  std::vector<bool> has_items(outputs.size());
  Chains chains(plan, tensors);
  std::unordered_map<size_t, size_t> by_chain;  // tasks
  for (size_t i = 0; i < plan.items.size(); ++i) {
    const plugin::PlanItem& item = plan.items[i];
    if (!wanted[item.object] || outputs.is_done(item)) continue;
    has_items[item.object] = true;
    const auto [it, is_new] = by_chain.emplace(chains.root(i), tasks.size());
    if (is_new) tasks.push_back({item.object, {}});
    tasks[it->second].items.push_back(&item);
  }
  std::stable_sort(tasks.begin(), tasks.end(),
                   [](const Task& a, const Task& b) { return out_bytes(a) > out_bytes(b); });
  for (uint64_t file = 0; file < outputs.size(); ++file) {
    if (wanted[file] && !has_items[file] && !outputs.is_done(file)) tasks.push_back({file, {}});
  }
  return tasks;
}

namespace {

Result<void> run_item(TensorService& service, const plugin::PlanItem& item, Outputs& outputs) {
  Outputs::Item done;
  {
    TensorService::Item tensors(service, item);
    XD_TRY_SET(done, outputs.write(item, tensors));
  }
  return outputs.finish(item, std::move(done));
}

// What the caller is told once an item, or a file without any, is done.
void tell(const Session& session, uint64_t file, const plugin::PlanItem* item,
          const plugin::Plan& plan, const Outputs& outputs) {
  if (!session.callbacks.written) return;
  const std::string& path = outputs.path(file);
  if (item)
    session.callbacks.written({path, item->number, plan.objects[file].n_items, item->out_bytes});
  if (outputs.is_done(file)) session.callbacks.written({path, 0, 0, outputs.bytes(file)});
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
  const size_t n_objects = planned.plan.objects.size();

  // Beside its own buffers an item takes the window that it reads through, and scratch.
  Schedule schedule;
  schedule.threads = session.request.threads;
  uint64_t total = 0;
  for (const Task& task : tasks) {
    uint64_t memory = task.file >= n_objects ? session.window_bytes() : 0;  // to copy
    for (const plugin::PlanItem* item : task.items)
      memory = std::max(memory, item->memory + planned.reading_bytes);
    schedule.memory.push_back(memory);
    total += out_bytes(task);
  }
  schedule.run = [&](size_t i) -> Result<void> {
    const Task& task = tasks[i];
    for (const plugin::PlanItem* item : task.items) {
      if (session.cancelled) return Error{XD_CANCELLED, "cancelled"};
      XD_TRY(run_item(service, *item, outputs));
      tell(session, item->object, item, planned.plan, outputs);
    }
    if (!task.items.empty()) return {};
    XD_TRY(task.file < n_objects ? outputs.seal(task.file)
                                 : copy_file(session, task.file, outputs));
    tell(session, task.file, nullptr, planned.plan, outputs);
    return {};
  };
  schedule.activities = &session.activities;
  schedule.name = [&](size_t i) {
    const std::string& path = outputs.path(tasks[i].file);
    return tasks[i].items.empty() ? path : cat(path, " ", tasks[i].items[0]->number);
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
