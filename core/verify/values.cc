// SPDX-License-Identifier: Apache-2.0
#include "core/verify/values.h"

#include "core/base/text.h"
#include "core/convert/scheduler.h"
#include "core/convert/tensor_digests.h"
#include "core/io/tree_digest.h"
#include "core/model/check.h"
#include "core/transform/cast.h"
#include "core/verify/elements.h"

#include <algorithm>
#include <atomic>
#include <deque>
#include <mutex>
#include <optional>
#include <unordered_map>

namespace crossdock::verify {

using convert::TensorSource;
using manifest::Tensor;

namespace {

constexpr uint64_t kPieceBytes = 256 << 10;  // three of them fit a processor's cache
// Of a task: the elements of some tens of MiB. Their bytes end on a leaf's edge, whatever the type.
constexpr uint64_t kTaskElems = uint64_t{4} << 20;
static_assert(kTaskElems % (8 * io::kLeafBytes) == 0);

std::string quoted(const std::string& name) { return cat("tensor \"", base::printable(name), '"'); }

uint64_t bytes_of(manifest::DType dtype, uint64_t n_elems) {
  return n_elems * manifest::info(dtype).bits / 8;
}

// One tensor of the source, of the destination, or of both.
struct Pair {
  std::optional<uint64_t> source, written;
  transform::CastFunction cast = nullptr;
  std::unique_ptr<io::TreeDigest> digest;  // of the source's
  std::mutex mutex{};
  uint64_t first_bad = UINT64_MAX;  // an element
  std::string bad{};                // what is wrong there
  std::atomic<bool> is_bad{false};
};

class Comparison {
 public:
  Comparison(const Made& made, const Opened& written, Findings& findings)
      : session_(made.session),
        source_(*made.prepared.tensors),
        target_(made.prepared.target.tensors),
        written_(*written.tensors),
        report_(made.report),
        findings_(findings) {
    is_excluded_.resize(target_.size());
    for (size_t i = 0; i < target_.size(); ++i) is_excluded_[i] = !target_[i].excluded.empty();
    for (const auto& [tensor, reason] : made.planned.plan.excluded) is_excluded_[tensor] = true;
    pair_all();
  }

  Result<uint64_t> run(const Progress& progress) {
    convert::Schedule schedule;
    schedule.threads = session_.request.threads;
    uint64_t total = 0;
    for (size_t i = 0; i < pairs_.size(); ++i) {
      const uint64_t n = model::element_count(tensor_of(pairs_[i]));
      for (uint64_t begin = 0; begin == 0 || begin < n; begin += kTaskElems)
        tasks_.push_back({i, begin, std::min(n, begin + kTaskElems)});
      total += model::value_bytes(tensor_of(pairs_[i]));
    }
    const uint64_t scratch = source_.scratch_bytes() + written_.scratch_bytes();
    for (const Task& task : tasks_)
      schedule.memory.push_back(3 * piece_bytes(pairs_[task.pair]) + scratch);
    schedule.run = [this](size_t i) { return run(tasks_[i]); };
    schedule.on_tick = [&] {
      if (progress) progress(done_, total);
    };
    XD_TRY(convert::run_schedule(schedule, session_.memory, session_.cancelled));
    if (progress) progress(total, total);
    return judge();
  }

 private:
  struct Task {
    size_t pair;
    uint64_t begin, end;  // elements
  };

  const Tensor& tensor_of(const Pair& pair) const {
    return pair.source ? target_[*pair.source] : written_.manifest().tensors[*pair.written];
  }

  // ---- which tensor is which
  void pair_all() {
    const manifest::Manifest& m = written_.manifest();
    std::unordered_map<std::string_view, uint64_t> by_name;
    for (uint64_t j = 0; j < m.tensors.size(); ++j) by_name.emplace(m.tensors[j].target(), j);
    std::vector<bool> is_met(m.tensors.size());
    for (uint64_t i = 0; i < target_.size(); ++i) {
      Pair& pair = pairs_.emplace_back();
      pair.source = i;
      pair.digest =
          std::make_unique<io::TreeDigest>(model::value_bytes(source_.manifest().tensors[i]));
    }
    // What was left out may still be there, as a second name of what was not.
    for (const bool excluded : {false, true}) {
      for (uint64_t i = 0; i < target_.size(); ++i) {
        if (is_excluded_[i] != excluded) continue;
        const auto it = by_name.find(target_[i].target());
        const bool is_there = it != by_name.end() && !is_met[it->second];
        pair_with(pairs_[i], is_there ? &m.tensors[it->second] : nullptr,
                  is_there ? it->second : 0);
        if (is_there) is_met[it->second] = true;
      }
    }
    for (const manifest::AliasGroup& group : m.alias_groups) {
      const auto is_known = [&](uint64_t j) { return is_met[j]; };
      if (std::any_of(group.tensors.begin(), group.tensors.end(), is_known))
        for (const uint64_t j : group.tensors) is_met[j] = true;
    }
    for (uint64_t j = 0; j < m.tensors.size(); ++j) {
      if (is_met[j]) continue;
      if (m.tensors[j].role == manifest::Role::kOptimizerState) {
        pairs_.emplace_back().written = j;
      } else {
        findings_.problem(cat(quoted(m.tensors[j].target()),
                              ": expected only tensors of the source, found this one in the "
                              "destination alone"));
      }
    }
  }

  void pair_with(Pair& pair, const Tensor* written, uint64_t index) {
    const Tensor& t = target_[*pair.source];
    const bool is_excluded = is_excluded_[*pair.source];
    const auto blame = [&](const std::string& what) {
      if (!is_excluded) findings_.problem(cat(quoted(t.target()), ": ", what));
    };
    if (!written) return blame("expected it in the destination, found none of this name");
    if (!is_shape_of(written->shape, t.shape))
      return blame(cat("expected the shape ", base::list_text(t.shape),
                       " in the destination, found ", base::list_text(written->shape)));
    pair.cast = transform::find_cast(t.dtype, written->dtype);
    if (!pair.cast && t.dtype != written->dtype)
      return blame(cat("expected a type that ", manifest::name(t.dtype), " can be cast to, found ",
                       manifest::name(written->dtype)));
    pair.written = index;
  }

  // ---- reading
  uint64_t piece_bytes(const Pair& pair) const {
    const bool is_large = (pair.source && source_.likes_large_reads(*pair.source)) ||
                          (pair.written && written_.likes_large_reads(*pair.written));
    return is_large ? session_.window_bytes() : std::min(kPieceBytes, session_.window_bytes());
  }

  Result<void> run(const Task& task) {
    Pair& pair = pairs_[task.pair];
    const uint64_t n_bytes = piece_bytes(pair);
    const base::Block from(session_.memory, n_bytes), cast(session_.memory, n_bytes),
        found(session_.memory, n_bytes);
    if (!from.data || !cast.data || !found.data)
      return Error{XD_NO_MEMORY, "expected room to compare two tensors: raise --memory"};
    uint32_t bits = 0;
    if (pair.source) bits = manifest::info(target_[*pair.source].dtype).bits;
    if (pair.written)
      bits = std::max(bits, manifest::info(written_.manifest().tensors[*pair.written].dtype).bits);
    const uint64_t step = n_bytes / bits * 8;
    std::optional<io::TreeDigest::Run> digest;
    if (pair.source)
      digest.emplace(*pair.digest, bytes_of(target_[*pair.source].dtype, task.begin));
    for (uint64_t at = task.begin; at < task.end; at += step) {
      if (session_.cancelled) return Error{XD_CANCELLED, "cancelled"};
      const uint64_t n = std::min(step, task.end - at);
      XD_TRY(compare(pair, at, n, from.data, cast.data, found.data, digest));
      done_ += bytes_of(tensor_of(pair).dtype, n);
    }
    if (digest) digest->hand_in();
    return {};
  }

  Result<void> compare(Pair& pair, uint64_t at, uint64_t n, std::byte* from, std::byte* cast,
                       std::byte* found, std::optional<io::TreeDigest::Run>& digest) {
    const std::byte* wanted = nullptr;
    if (pair.source) {
      const Tensor& t = target_[*pair.source];
      const std::span<std::byte> bytes(from, bytes_of(t.dtype, n));
      if (auto r = source_.read(*pair.source, at, n, bytes); !r)
        return std::move(r).error().in(cat("source: ", quoted(t.name)));
      digest->add(bytes);
      wanted = from;
    }
    if (!pair.written || pair.is_bad) return {};
    const Tensor& w = written_.manifest().tensors[*pair.written];
    const std::span<std::byte> bytes(found, bytes_of(w.dtype, n));
    if (auto r = written_.read(*pair.written, at, n, bytes); !r) {
      if (r.error().code == XD_CANCELLED || r.error().code == XD_NO_MEMORY) return r;
      blame(pair, at, cat(quoted(w.target()), ": destination: ", r.error().message));
      return {};
    }
    if (!wanted) {
      std::fill_n(cast, bytes.size(), std::byte{0});
      wanted = cast;
    } else if (target_[*pair.source].dtype != w.dtype) {
      pair.cast(from, cast, n);
      wanted = cast;
    }
    const uint64_t bad = first_difference(w.dtype, wanted, found, n);
    if (bad < n) blame_element(pair, at + bad, w, bad, from, wanted, found);
    return {};
  }

  void blame_element(Pair& pair, uint64_t element, const Tensor& w, uint64_t i,
                     const std::byte* from, const std::byte* wanted, const std::byte* found) {
    const std::string place = place_text(w.target(), w.shape, element);
    const std::string there = element_text(w.dtype, found, i);
    if (!pair.source)
      return blame(pair, element,
                   cat(place, ": expected 0 of a moment that the source has not, found ", there));
    const manifest::DType dtype = target_[*pair.source].dtype;
    std::string here = element_text(dtype, from, i);
    if (dtype != w.dtype)
      here += cat(" (", element_text(w.dtype, wanted, i), " as ", manifest::name(w.dtype), ")");
    blame(pair, element, cat(place, ": source ", here, ", destination ", there));
  }

  void blame(Pair& pair, uint64_t element, std::string what) {
    const std::lock_guard lock(pair.mutex);
    pair.is_bad = true;
    if (element >= pair.first_bad) return;
    pair.first_bad = element;
    pair.bad = std::move(what);
  }

  // ---- the verdict
  Result<uint64_t> judge() {
    std::unordered_map<std::string_view, const report::Tensor*> known;
    for (const report::Tensor& t : report_.tensors) known.emplace(t.name, &t);
    uint64_t n_compared = 0, n_bad = 0;
    for (Pair& pair : pairs_) {
      n_compared += pair.written ? 1 : 0;
      n_bad += pair.is_bad ? 1 : 0;
      if (pair.is_bad) findings_.problem(pair.bad);
      if (!pair.source) continue;
      XD_TRY(convert::read_missing(source_, *pair.source, *pair.digest, session_.cancelled));
      const Tensor& t = target_[*pair.source];
      const auto it = known.find(t.name);
      if (it == known.end() || pair.is_bad) continue;  // told already, or by compare_source()
      const std::string found = pair.digest->text();
      if (found != it->second->digest)
        findings_.problem(cat(quoted(t.name), " of the source: expected values of ",
                              it->second->digest, " as converted, found ", found));
    }
    if (n_bad > 0)
      findings_.note(cat(n_bad, " of ", n_compared, " tensors differ from the source."));
    return n_compared;
  }

  convert::Session& session_;
  TensorSource& source_;
  const std::vector<Tensor>& target_;
  TensorSource& written_;
  const report::Report& report_;
  Findings& findings_;
  std::vector<bool> is_excluded_;
  std::deque<Pair> pairs_;
  std::vector<Task> tasks_;
  std::atomic<uint64_t> done_{0};
};

}  // namespace

bool is_shape_of(const std::vector<uint64_t>& written, const std::vector<uint64_t>& shape) {
  return written == shape || (shape.empty() && written == std::vector<uint64_t>{1});
}

Result<uint64_t> compare_values(const Made& made, const Opened& written, const Progress& progress,
                                Findings& findings) {
  return Comparison(made, written, findings).run(progress);
}

}  // namespace crossdock::verify
