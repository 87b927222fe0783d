#include "core/verify/difference.h"

#include "core/convert/scheduler.h"
#include "core/model/check.h"
#include "core/transform/cast.h"
#include "core/verify/elements.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <deque>
#include <limits>
#include <mutex>
#include <unordered_map>

namespace crossdock::verify {

using manifest::DType;
using manifest::Tensor;

namespace {

constexpr uint64_t kPieceBytes = 1 << 20;
constexpr uint64_t kTaskElems = uint64_t{4} << 20;
constexpr size_t kFewElems = 2048;  // that are numbers at once, in cache

// Of a type that ulps are counted in; 0 for others.
unsigned mantissa_bits(DType dtype) {
  switch (dtype) {
    case DType::BF16:
      return 7;
    case DType::F16:
      return 10;
    case DType::F32:
      return 23;
    case DType::F64:
      return 52;
    default:
      return 0;
  }
}

// The place of a value among all of its type, in order; both zeros are 0.
template <class Bits>
int64_t place_of(const std::byte* bytes) {
  Bits bits;
  std::memcpy(&bits, bytes, sizeof bits);
  constexpr Bits kSign = Bits{1} << (8 * sizeof(Bits) - 1);
  const auto size = static_cast<int64_t>(bits & ~kSign);
  return bits & kSign ? -size : size;
}

int64_t place_in(DType dtype, double value) {
  std::byte from[8], to[8];
  std::memcpy(from, &value, sizeof value);
  transform::find_cast(DType::F64, dtype)(from, to, 1);
  switch (dtype) {
    case DType::F64:
      return place_of<uint64_t>(to);
    case DType::F32:
      return place_of<uint32_t>(to);
    default:
      return place_of<uint16_t>(to);
  }
}

// What the pieces of one tensor add up to.
struct Sum {
  std::mutex mutex{};
  TensorDifference* out = nullptr;
  uint64_t a = 0, b = 0;  // their indexes
};

class PairOfValues {
 public:
  PairOfValues(const Tensor& a, const Tensor& b)
      : dtypes_{a.dtype, b.dtype}, coarser_(coarser(a.dtype, b.dtype)) {}

  // Adds what differs among n elements from `begin` on.
  void compare(const std::byte* a, const std::byte* b, uint64_t begin, uint64_t n,
               TensorDifference& out) {
    const bool one_type = dtypes_[0] == dtypes_[1];
    const uint64_t bad = one_type ? first_difference(dtypes_[0], a, b, n) : 0;
    if (!is_number(dtypes_[0])) return compare_bits(a, b, begin, bad, n, out);
    for (uint64_t at = 0; at < n; at += kFewElems) {
      const auto few = static_cast<size_t>(std::min<uint64_t>(kFewElems, n - at));
      to_doubles(dtypes_[0], a, at, {a_.data(), few});
      // Equal bits still may be NaN, which are counted.
      const bool is_behind = one_type && at + few <= bad;
      if (is_behind) {
        std::copy_n(a_.data(), few, b_.data());
      } else {
        to_doubles(dtypes_[1], b, at, {b_.data(), few});
      }
      for (size_t i = 0; i < few; ++i) {
        out.n_nan[0] += std::isnan(a_[i]) ? 1 : 0;
        out.n_nan[1] += std::isnan(b_[i]) ? 1 : 0;
      }
      if (is_behind) continue;
      for (size_t i = 0; i < few; ++i) {
        const uint64_t k = at + i;
        const bool same = one_type ? same_bits(a, b, k) : same_numbers(a_[i], b_[i]);
        if (!same) add(a, b, begin, k, a_[i], b_[i], out);
      }
    }
  }

 private:
  bool same_bits(const std::byte* a, const std::byte* b, uint64_t k) const {
    const uint64_t bits = manifest::info(dtypes_[0]).bits;
    if (bits % 8 != 0)
      return first_difference(dtypes_[0], a + k / 8 * bits, b + k / 8 * bits, k % 8 + 1) > k % 8;
    return std::memcmp(a + k * bits / 8, b + k * bits / 8, bits / 8) == 0;
  }
  static bool same_numbers(double a, double b) {
    return (std::isnan(a) && std::isnan(b)) || (a == b && std::signbit(a) == std::signbit(b));
  }

  void compare_bits(const std::byte* a, const std::byte* b, uint64_t begin, uint64_t bad,
                    uint64_t n, TensorDifference& out) {
    for (uint64_t k = bad; k < n; ++k) {
      if (!same_bits(a, b, k)) add(a, b, begin, k, 0, 0, out);
    }
  }

  void add(const std::byte* a, const std::byte* b, uint64_t begin, uint64_t k, double x, double y,
           TensorDifference& out) {
    if (out.n_differ++ == 0 || begin + k < out.first) {
      out.first = begin + k;
      out.first_text =
          cat("A ", element_text(dtypes_[0], a, k), ", B ", element_text(dtypes_[1], b, k));
    }
    if (std::isnan(x) || std::isnan(y)) {
      out.max_abs = std::numeric_limits<double>::infinity();
      return;
    }
    out.max_abs = std::max(out.max_abs, x == y ? 0 : std::abs(x - y));
    if (coarser_) {
      const uint64_t ulp = ulp_distance(*coarser_, x, y);
      out.max_ulp = std::max(out.max_ulp.value_or(0), ulp);
    }
  }

  const std::array<DType, 2> dtypes_;
  const std::optional<DType> coarser_;
  std::array<double, kFewElems> a_, b_;
};

void take_in(const TensorDifference& part, TensorDifference& out) {
  if (part.n_differ > 0 && (out.n_differ == 0 || part.first < out.first)) {
    out.first = part.first;
    out.first_text = part.first_text;
  }
  out.n_differ += part.n_differ;
  for (const int i : {0, 1}) out.n_nan[i] += part.n_nan[i];
  out.max_abs = std::max(out.max_abs, part.max_abs);
  if (part.max_ulp) out.max_ulp = std::max(out.max_ulp.value_or(0), *part.max_ulp);
}

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
    TensorDifference part{};
    PairOfValues values(a, b);
    for (uint64_t at = task.begin; at < task.end; at += step) {
      if (how_.cancelled) return Error{XD_CANCELLED, "cancelled"};
      const uint64_t n = std::min(step, task.end - at);
      if (auto r = a_.read(sum.a, at, n, {in_a.data, n * a_bits / 8}); !r)
        return std::move(r).error().in(cat("A: tensor \"", a.target(), '"'));
      if (auto r = b_.read(sum.b, at, n, {in_b.data, n * b_bits / 8}); !r)
        return std::move(r).error().in(cat("B: tensor \"", b.target(), '"'));
      values.compare(in_a.data, in_b.data, at, n, part);
      done_ += n * a_bits / 8;
    }
    const std::lock_guard lock(sum.mutex);
    take_in(part, *sum.out);
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

std::optional<DType> coarser(DType a, DType b) {
  const unsigned of_a = mantissa_bits(a), of_b = mantissa_bits(b);
  if (of_a == 0 || of_b == 0) return std::nullopt;
  return of_a < of_b ? a : b;
}

uint64_t ulp_distance(DType dtype, double a, double b) {
  const int64_t x = place_in(dtype, a), y = place_in(dtype, b);
  return x > y ? static_cast<uint64_t>(x) - static_cast<uint64_t>(y)
               : static_cast<uint64_t>(y) - static_cast<uint64_t>(x);
}

Result<Difference> compare_checkpoints(const Comparing& how, const Opened& a, const Opened& b) {
  return Comparison(how, a, b).run();
}

}  // namespace crossdock::verify
