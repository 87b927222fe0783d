// SPDX-License-Identifier: Apache-2.0
#include "core/verify/difference.h"

#include "core/convert/scheduler.h"
#include "core/model/check.h"
#include "core/verify/elements.h"

#include <algorithm>
#include <deque>
#include <mutex>
#include <unordered_map>

namespace crossdock::verify {

using manifest::DType;
using manifest::Tensor;

namespace {

constexpr uint64_t kPieceBytes = 1 << 20;
constexpr uint64_t kTaskElems = uint64_t{4} << 20;

// What the pieces of one tensor add up to.
struct Sum {
  std::mutex mutex{};
  TensorDifference* out = nullptr;
  uint64_t a = 0, b = 0;  // their indexes
};

class Comparison {
 public:
  Comparison(const Comparing& how, const Opened& a, const Opened& b)
      : how_(how), a_(*a.tensors), b_(*b.tensors) {}

  Result<Difference> run() {
    pair_all();
    convert::Schedule schedule;
    schedule.threads = how_.threads;
    schedule.memory.assign(tasks_.size(),
                           2 * kPieceBytes + a_.scratch_bytes() + b_.scratch_bytes());
    schedule.run = [this](size_t i) { return run(tasks_[i]); };
    schedule.on_tick = [this] {
      if (how_.progress) how_.progress(done_, total_);
    };
    XD_TRY(convert::run_schedule(schedule, how_.memory, how_.cancelled));
    if (how_.progress) how_.progress(total_, total_);
    return std::move(out_);
  }

 private:
  struct Task {
    size_t sum;
    uint64_t begin, end;
  };

  static bool is_state(const Tensor& t) { return t.role == manifest::Role::kOptimizerState; }
  static uint64_t count_states(const manifest::Manifest& m) {
    return static_cast<uint64_t>(
        std::count_if(m.tensors.begin(), m.tensors.end(),
                      [](const Tensor& t) { return is_state(t) && t.excluded.empty(); }));
  }

  // Whether states are compared.
  bool takes_states() {
    const uint64_t of_a = count_states(a_.manifest()), of_b = count_states(b_.manifest());
    if ((of_a == 0) != (of_b == 0))
      out_.note = cat(of_a == 0 ? "B" : "A", " has the state of an optimizer (",
                      std::max(of_a, of_b), " tensors), which the other has not: it is left out.");
    return of_a > 0 && of_b > 0;
  }

  void pair_all() {
    std::unordered_map<std::string_view, uint64_t> in_b;
    const auto& tensors = b_.manifest().tensors;
    const auto& of_a = a_.manifest().tensors;
    const bool has_states = takes_states();
    const auto counts = [&](const Tensor& t) {
      return t.excluded.empty() && (has_states || !is_state(t));
    };
    for (uint64_t i = 0; i < tensors.size(); ++i) {
      if (counts(tensors[i])) in_b.emplace(tensors[i].target(), i);
    }
    out_.tensors.reserve(tensors.size());  // sums point into it
    for (uint64_t i = 0; i < of_a.size(); ++i) {
      if (!counts(of_a[i])) continue;
      const auto it = in_b.find(of_a[i].target());
      if (it == in_b.end()) {
        out_.only_in_a.push_back(of_a[i].target());
        continue;
      }
      pair(i, it->second);
      in_b.erase(it);
    }
    for (const Tensor& t : tensors) {
      if (counts(t) && in_b.contains(t.target())) out_.only_in_b.push_back(t.target());
    }
  }

  void pair(uint64_t i, uint64_t j) {
    const Tensor &a = a_.manifest().tensors[i], &b = b_.manifest().tensors[j];
    TensorDifference& one = out_.tensors.emplace_back();
    one.name = a.target();
    one.dtype[0] = a.dtype;
    one.dtype[1] = b.dtype;
    one.shape[0] = a.shape;
    one.shape[1] = b.shape;
    one.n_elems = model::element_count(a);
    one.is_comparable =
        a.shape == b.shape && (a.dtype == b.dtype || (is_number(a.dtype) && is_number(b.dtype)));
    if (!one.is_comparable) return;
    Sum& sum = sums_.emplace_back();
    sum.out = &one;
    sum.a = i;
    sum.b = j;
    for (uint64_t at = 0; at < one.n_elems; at += kTaskElems)
      tasks_.push_back({sums_.size() - 1, at, std::min(one.n_elems, at + kTaskElems)});
    total_ += model::value_bytes(a);
  }

  Result<void> run(const Task& task) {
    Sum& sum = sums_[task.sum];
    const Tensor &a = a_.manifest().tensors[sum.a], &b = b_.manifest().tensors[sum.b];
    const base::Block in_a(how_.memory, kPieceBytes), in_b(how_.memory, kPieceBytes);
    if (!in_a.data || !in_b.data)
      return Error{XD_NO_MEMORY, "expected room to compare two tensors: raise --memory"};
    const uint64_t a_bits = manifest::info(a.dtype).bits, b_bits = manifest::info(b.dtype).bits;
    const uint64_t step = kPieceBytes / std::max(a_bits, b_bits) * 8;
    Distance part;
    DistanceMeter meter(a.dtype, b.dtype);
    for (uint64_t at = task.begin; at < task.end; at += step) {
      if (how_.cancelled) return Error{XD_CANCELLED, "cancelled"};
      const uint64_t n = std::min(step, task.end - at);
      if (auto r = a_.read(sum.a, at, n, {in_a.data, n * a_bits / 8}); !r)
        return std::move(r).error().in(cat("A: tensor \"", a.target(), '"'));
      if (auto r = b_.read(sum.b, at, n, {in_b.data, n * b_bits / 8}); !r)
        return std::move(r).error().in(cat("B: tensor \"", b.target(), '"'));
      meter.compare(in_a.data, in_b.data, at, n, part);
      done_ += n * a_bits / 8;
    }
    const std::lock_guard lock(sum.mutex);
    sum.out->add(part);
    return {};
  }

  const Comparing& how_;
  convert::TensorSource &a_, &b_;
  Difference out_;
  std::deque<Sum> sums_;
  std::vector<Task> tasks_;
  uint64_t total_ = 0;  // bytes of A
  std::atomic<uint64_t> done_{0};
};

}  // namespace

bool Difference::is_same(bool ignores_types) const {
  return only_in_a.empty() && only_in_b.empty() &&
         std::all_of(tensors.begin(), tensors.end(),
                     [&](const TensorDifference& t) { return t.is_same(ignores_types); });
}

Result<Difference> compare_checkpoints(const Comparing& how, const Opened& a, const Opened& b) {
  return Comparison(how, a, b).run();
}

}  // namespace crossdock::verify
