#include "core/convert/source_proof.h"

#include "core/convert/scheduler.h"
#include "core/convert/tensor_digests.h"
#include "core/model/check.h"

#include <algorithm>
#include <deque>
#include <map>
#include <variant>

namespace crossdock::convert {

using io::ByteRange;
using manifest::Tensor;
using transform::Factor;
using transform::Node;

namespace {

// Sorted, those that meet as one.
std::vector<ByteRange> merged(std::vector<ByteRange> ranges) {
  std::sort(ranges.begin(), ranges.end(),
            [](const ByteRange& a, const ByteRange& b) { return a.begin < b.begin; });
  std::vector<ByteRange> out;
  for (const ByteRange& range : ranges) {
    if (out.empty() || range.begin > out.back().end) {
      out.push_back(range);
    } else {
      out.back().end = std::max(out.back().end, range.end);
    }
  }
  return out;
}

// How many elements a view shows, when they are neighbours from its offset on, each once.
uint64_t neighbours_of(std::vector<Factor> factors) {
  std::sort(factors.begin(), factors.end(),
            [](const Factor& a, const Factor& b) { return a.stride < b.stride; });
  uint64_t n = 1;
  for (const Factor& factor : factors) {
    if (factor.size == 1) continue;
    if (factor.stride != n) return 0;
    n *= factor.size;
  }
  return n;
}

// Elements of stored tensors that made ones have as they are, by tensor.
class Kept {
 public:
  void add(const transform::Expression& expression) {
    add(expression.nodes(), static_cast<uint32_t>(expression.nodes().size() - 1));
  }
  bool is_whole(uint64_t tensor, uint64_t n_elems) const {
    const auto it = ranges_.find(tensor);
    if (it == ranges_.end()) return n_elems == 0;
    const auto all = merged(it->second);
    return all.size() == 1 && all[0].begin == 0 && all[0].end >= n_elems;
  }

 private:
  void add(const std::vector<Node>& nodes, uint32_t index) {
    const Node& node = nodes[index];
    const uint64_t n_elems = count(node.shape);
    if (const auto* stored = std::get_if<Node::Stored>(&node.what)) {
      ranges_[stored->tensor].push_back({0, n_elems});
    } else if (const auto* concat = std::get_if<Node::Concat>(&node.what)) {
      for (const uint32_t child : concat->of) add(nodes, child);
    } else if (const auto* view = std::get_if<Node::Viewed>(&node.what)) {
      if (neighbours_of(view->factors) != n_elems) return;
      const auto* below = std::get_if<Node::Stored>(&nodes[view->of].what);
      if (below) {
        ranges_[below->tensor].push_back({view->offset, view->offset + n_elems});
      } else if (view->offset == 0 && n_elems == count(nodes[view->of].shape)) {
        add(nodes, view->of);
      }
    }  // the rest computes, and other values may give the same
  }
  static uint64_t count(const std::vector<uint64_t>& shape) {
    uint64_t n = 1;
    for (const uint64_t size : shape) n *= size;
    return n;
  }

  std::map<uint64_t, std::vector<ByteRange>> ranges_;  // of elements
};

bool is_stored_as_it_is(const Tensor& t) {
  uint64_t n_bytes = 0;
  for (const manifest::Extent& extent : t.extents) n_bytes += extent.length;
  return t.encoding.empty() && t.strides.empty() && n_bytes == model::value_bytes(t);
}

// Of a task: many for several threads, however few files there are.
constexpr uint64_t kTaskBytes = 32 << 20;
static_assert(kTaskBytes % io::kLeafBytes == 0);

uint64_t size_of(const std::vector<ByteRange>& ranges) {
  uint64_t total = 0;
  for (const ByteRange& range : ranges) total += range.end - range.begin;
  return total;
}

// Of one file the bytes in some ranges, one after the other, and their digest.
struct Rest {
  Rest(std::string of, std::vector<ByteRange> in)
      : name(std::move(of)), ranges(std::move(in)), digest(size_of(ranges)) {}
  const std::string name;
  const std::vector<ByteRange> ranges;
  io::TreeDigest digest;
};

// Reads bytes [begin, end) of these into the digest.
Result<void> read_rest(OpenModel& source, Rest& rest, ByteRange wanted,
                       const std::atomic<bool>& cancelled) {
  const base::Block piece(source.host().memory(), kDigestMemory);
  if (!piece.data)
    return Error{XD_NO_MEMORY, "expected room for a piece of a file: raise --memory"};
  const manifest::AuxFile file{{}, rest.name, rest.name};
  io::TreeDigest::Run run(rest.digest, wanted.begin);
  uint64_t before = 0;  // bytes of the ranges before
  for (const ByteRange& range : rest.ranges) {
    const uint64_t behind = before + (range.end - range.begin);
    while (run.position() < std::min(behind, wanted.end) && run.position() >= before) {
      if (cancelled) return Error{XD_CANCELLED, "cancelled"};
      const uint64_t n = std::min(kDigestMemory, std::min(behind, wanted.end) - run.position());
      XD_TRY(source.read_aux(file, range.begin + (run.position() - before), {piece.data, n}));
      run.add({piece.data, n});
    }
    before = behind;
  }
  run.hand_in();
  return {};
}

// The files that were read and hold no tensor.
std::vector<std::string> names_beside(const Prepared& prepared) {
  const manifest::Manifest& m = prepared.target;
  std::vector<std::string> names = prepared.source->read_files();
  for (const manifest::AuxFile& file : m.aux_files) {
    if (const auto* name = std::get_if<std::string>(&file.content)) names.push_back(*name);
  }
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  std::erase_if(names, [&](const std::string& name) {
    return std::any_of(m.source.files.begin(), m.source.files.end(),
                       [&](const manifest::File& file) { return file.name == name; });
  });
  return names;
}

}  // namespace

std::vector<std::vector<ByteRange>> unproved_ranges(const TensorSource& model) {
  const auto& files = model.manifest().source.files;
  Kept kept;
  for (const transform::Expression& expression : model.expressions()) kept.add(expression);
  std::vector<std::vector<ByteRange>> proved(files.size());
  const auto stored = model.stored();
  for (uint64_t i = 0; i < stored.size(); ++i) {
    if (!is_stored_as_it_is(stored[i])) continue;
    if (!model.expressions().empty() && !kept.is_whole(i, model::element_count(stored[i])))
      continue;
    for (const manifest::Extent& extent : stored[i].extents)
      proved[extent.file].push_back({extent.offset, extent.offset + extent.length});
  }
  std::vector<std::vector<ByteRange>> out(files.size());
  for (size_t i = 0; i < files.size(); ++i) {
    uint64_t at = 0;
    for (const ByteRange& range : merged(std::move(proved[i]))) {
      if (range.begin > at) out[i].push_back({at, range.begin});
      at = std::max(at, range.end);
    }
    if (at < files[i].size) out[i].push_back({at, files[i].size});
  }
  return out;
}

Result<SourceProof> prove_source(Session& session, const Prepared& prepared) {
  OpenModel& source = *prepared.source;
  const auto& files = prepared.tensors->manifest().source.files;
  auto ranges = unproved_ranges(*prepared.tensors);
  std::deque<Rest> rests;
  for (size_t i = 0; i < files.size(); ++i) rests.emplace_back(files[i].name, std::move(ranges[i]));
  SourceProof out;
  for (const std::string& name : names_beside(prepared)) {
    out.beside.push_back({name, source.aux_size({{}, name, name}), "", ""});
    rests.emplace_back(name, std::vector<ByteRange>{{0, out.beside.back().size}});
  }
  std::vector<std::pair<size_t, ByteRange>> tasks;
  for (size_t i = 0; i < rests.size(); ++i) {
    for (uint64_t at = 0; at < rests[i].digest.size(); at += kTaskBytes)
      tasks.push_back({i, {at, std::min(at + kTaskBytes, rests[i].digest.size())}});
  }
  Schedule schedule;
  schedule.threads = session.request.threads;
  schedule.memory.assign(tasks.size(), kDigestMemory);
  schedule.run = [&](size_t i) {
    return read_rest(source, rests[tasks[i].first], tasks[i].second, session.cancelled);
  };
  XD_TRY(run_schedule(schedule, session.memory, session.cancelled));
  for (size_t i = 0; i < files.size(); ++i) out.rests.push_back(rests[i].digest.text());
  for (size_t i = 0; i < out.beside.size(); ++i)
    out.beside[i].rest_digest = rests[files.size() + i].digest.text();
  return out;
}

}  // namespace crossdock::convert
