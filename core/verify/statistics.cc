// SPDX-License-Identifier: Apache-2.0
#include "core/verify/statistics.h"

#include "core/convert/scheduler.h"
#include "core/model/check.h"
#include "core/verify/elements.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace crossdock::verify {

using manifest::Tensor;

namespace {

constexpr uint64_t kPieceBytes = 1 << 20;
constexpr uint64_t kTaskElems = uint64_t{4} << 20;
constexpr size_t kFewElems = 2048;  // that are numbers at once, in cache

// Of a range of elements, in order.
struct Part {
  uint64_t n_nan = 0, n_inf = 0, n_zero = 0, n_finite = 0;
  double min = std::numeric_limits<double>::infinity();
  double max = -std::numeric_limits<double>::infinity();
  double sum = 0;

  void add(std::span<const double> values) {
    for (const double x : values) {
      if (std::isfinite(x)) {
        min = std::min(min, x);
        max = std::max(max, x);
        sum += x;
        ++n_finite;
        n_zero += x == 0 ? 1 : 0;
      } else {
        ++(std::isnan(x) ? n_nan : n_inf);
      }
    }
  }
  void add(const Part& other) {
    n_nan += other.n_nan;
    n_inf += other.n_inf;
    n_zero += other.n_zero;
    n_finite += other.n_finite;
    min = std::min(min, other.min);
    max = std::max(max, other.max);
    sum += other.sum;
  }
};

Statistics finished(const Part& part, uint64_t n_elems) {
  Statistics out;
  out.n_elems = n_elems;
  out.n_nan = part.n_nan;
  out.n_inf = part.n_inf;
  out.n_zero = part.n_zero;
  if (part.n_finite == 0) return out;
  out.min = part.min;
  out.max = part.max;
  out.mean = part.sum / static_cast<double>(part.n_finite);
  out.is_constant = n_elems > 1 && part.n_finite == n_elems && part.min == part.max;
  return out;
}

struct Task {
  size_t tensor;
  uint64_t begin, end;
};

Result<Part> look(const Comparing& how, convert::TensorSource& model, const Task& task) {
  const Tensor& t = model.manifest().tensors[task.tensor];
  const base::Block piece(how.memory, kPieceBytes);
  if (!piece.data)
    return Error{XD_NO_MEMORY, "expected room for a piece of a tensor: raise --memory"};
  const uint64_t bits = manifest::info(t.dtype).bits, step = kPieceBytes / bits * 8;
  std::array<double, kFewElems> numbers;
  Part out;
  for (uint64_t at = task.begin; at < task.end; at += step) {
    if (how.cancelled) return Error{XD_CANCELLED, "cancelled"};
    const uint64_t n = std::min(step, task.end - at);
    if (auto r = model.read(task.tensor, at, n, {piece.data, n * bits / 8}); !r)
      return std::move(r).error().in(cat("tensor \"", t.name, '"'));
    for (uint64_t k = 0; k < n; k += kFewElems) {
      const auto few = static_cast<size_t>(std::min<uint64_t>(kFewElems, n - k));
      to_doubles(t.dtype, piece.data, k, {numbers.data(), few});
      out.add({numbers.data(), few});
    }
  }
  return out;
}

}  // namespace

std::string Statistics::oddity() const {
  std::string out;
  const auto add = [&out](const std::string& text) { out += (out.empty() ? "" : ", ") + text; };
  if (n_nan > 0) add(fmt::format("{} NaN", n_nan));
  if (n_inf > 0) add(fmt::format("{} Inf", n_inf));
  if (begins_so) {
    // Norms and biases of a new model.
  } else if (n_elems > 1 && n_zero == n_elems) {
    add("all zero");
  } else if (is_constant) {
    add(fmt::format("constant {}", min));
  }
  return out;
}

Result<std::vector<Statistics>> take_statistics(const Comparing& how,
                                                convert::TensorSource& model) {
  const auto& tensors = model.manifest().tensors;
  std::vector<Task> tasks;
  uint64_t total = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (!is_number(tensors[i].dtype)) continue;
    const uint64_t n = model::element_count(tensors[i]);
    for (uint64_t at = 0; at < n; at += kTaskElems)
      tasks.push_back({i, at, std::min(n, at + kTaskElems)});
    total += model::value_bytes(tensors[i]);
  }
  std::vector<Part> parts(tasks.size());
  std::atomic<uint64_t> done{0};
  convert::Schedule schedule;
  schedule.threads = how.threads;
  schedule.memory.assign(tasks.size(), kPieceBytes + model.scratch_bytes());
  schedule.run = [&](size_t i) -> Result<void> {
    XD_TRY_SET(parts[i], look(how, model, tasks[i]));
    done += *manifest::dense_bytes(tensors[tasks[i].tensor].dtype, tasks[i].end - tasks[i].begin);
    return {};
  };
  schedule.on_tick = [&] {
    if (how.progress) how.progress(done, total);
  };
  XD_TRY(convert::run_schedule(schedule, how.memory, how.cancelled));
  // In order, so that a mean is the same whatever thread was first.
  std::vector<Part> sums(tensors.size());
  for (size_t i = 0; i < tasks.size(); ++i) sums[tasks[i].tensor].add(parts[i]);
  std::vector<Statistics> out;
  for (size_t i = 0; i < tensors.size(); ++i) {
    out.push_back(finished(sums[i], model::element_count(tensors[i])));
    out.back().has_numbers = is_number(tensors[i].dtype);
    out.back().begins_so = tensors[i].shape.size() < 2 && out.back().is_constant &&
                           (out.back().min == 0 || out.back().min == 1);
  }
  return out;
}

}  // namespace crossdock::verify
