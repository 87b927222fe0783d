// SPDX-License-Identifier: Apache-2.0
#include "core/convert/source_proof.h"

#include "core/base/activity.h"
#include "core/convert/scheduler.h"
#include "core/convert/tensor_digests.h"
#include "core/model/check.h"

#include <algorithm>
#include <map>
#include <variant>

namespace crossdock::convert {

using io::ByteRange;
using manifest::Tensor;
using transform::Factor;
using transform::Node;

namespace {

// Of leaves where two reads of a file meet.
constexpr uint64_t kMaxRestSeamBytes = 16 << 20;

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

namespace {
thread_local std::vector<SourceProver::Range>* captured = nullptr;

void capture(uint64_t file, ByteRange bytes) {
  if (!captured) return;
  if (!captured->empty() && captured->back().file == file &&
      captured->back().bytes.end == bytes.begin) {
    captured->back().bytes.end = bytes.end;
  } else {
    captured->push_back({file, bytes});
  }
}
}  // namespace

SourceProver::Capture::Capture(std::vector<Range>& out) { captured = &out; }
SourceProver::Capture::~Capture() { captured = nullptr; }

SourceProver::Rest SourceProver::make_rest(std::vector<ByteRange> ranges,
                                           std::atomic<int64_t>* seam_room) {
  Rest out;
  uint64_t total = 0;
  for (const ByteRange& range : ranges) {
    out.begins.push_back(total);
    total += range.end - range.begin;
  }
  out.ranges = std::move(ranges);
  out.digest = std::make_unique<io::TreeDigest>(total, seam_room);
  return out;
}

SourceProver::SourceProver(Session& session, const Prepared& prepared)
    : session_(session),
      prepared_(prepared),
      seam_room_(static_cast<int64_t>(std::min(kMaxRestSeamBytes, session.request.memory / 16))) {
  const auto& files = prepared.tensors->manifest().source.files;
  auto ranges = unproved_ranges(*prepared.tensors);
  for (size_t i = 0; i < files.size(); ++i) {
    rests_.push_back(make_rest(std::move(ranges[i]), &seam_room_));
    // A reader may name files that the host cannot see, such as parts of an archive.
    if (const io::InputEntry* entry = prepared.source->input().find(files[i].name))
      index_[entry] = i;
  }
  session.host.source_seen = [this](const io::InputEntry& entry, uint64_t offset,
                                    std::span<const std::byte> bytes) {
    see(entry, offset, bytes);
  };
}

SourceProver::~SourceProver() { session_.host.source_seen = nullptr; }

void SourceProver::see(const io::InputEntry& entry, uint64_t offset,
                       std::span<const std::byte> bytes) {
  const auto it = index_.find(&entry);
  if (it == index_.end()) return;
  Rest& rest = rests_[it->second];
  const uint64_t end = offset + bytes.size();
  const base::Span span(base::Activity::kDigest);
  auto range = std::partition_point(rest.ranges.begin(), rest.ranges.end(),
                                    [offset](const ByteRange& r) { return r.end <= offset; });
  for (; range != rest.ranges.end() && range->begin < end; ++range) {
    const uint64_t from = std::max(range->begin, offset), to = std::min(range->end, end);
    const size_t i = static_cast<size_t>(range - rest.ranges.begin());
    io::TreeDigest::Run run(*rest.digest, rest.begins[i] + (from - range->begin));
    run.add(bytes.subspan(from - offset, to - from));
    run.hand_in();
    capture(it->second, {run.position() - (to - from), run.position()});
  }
}

Result<void> SourceProver::read_missing(const std::string& name, Rest& rest) {
  const base::Block piece(session_.memory, kDigestMemory);
  if (!piece.data)
    return Error{XD_NO_MEMORY, "expected room for a piece of a file: raise --memory"};
  const manifest::AuxFile file{{}, name, name};
  for (const ByteRange& missing : rest.digest->missing()) {
    io::TreeDigest::Run run(*rest.digest, missing.begin);
    while (run.position() < missing.end) {
      if (session_.cancelled) return Error{XD_CANCELLED, "cancelled"};
      // The range of the file that this byte of the digest is in.
      const auto next = std::upper_bound(rest.begins.begin(), rest.begins.end(), run.position());
      const size_t i = static_cast<size_t>(next - rest.begins.begin()) - 1;
      const uint64_t at = rest.ranges[i].begin + (run.position() - rest.begins[i]);
      const uint64_t n =
          std::min({kDigestMemory, rest.ranges[i].end - at, missing.end - run.position()});
      XD_TRY(prepared_.source->read_aux(file, at, {piece.data, n}));
      run.add({piece.data, n});
    }
    run.hand_in();
  }
  return {};
}

Result<SourceProof> SourceProver::finish() {
  session_.host.source_seen = nullptr;
  OpenModel& source = *prepared_.source;
  const auto& files = prepared_.tensors->manifest().source.files;
  SourceProof out;
  out.rests.resize(files.size());
  std::vector<Rest> beside;
  for (const std::string& name : names_beside(prepared_)) {
    const uint64_t size = source.aux_size({{}, name, name});
    out.beside.push_back({name, size, "", ""});
    beside.push_back(make_rest({{0, size}}, nullptr));
  }
  Schedule schedule;
  schedule.threads = session_.request.threads;
  schedule.memory.assign(files.size() + beside.size(), kDigestMemory);
  schedule.run = [&](size_t i) -> Result<void> {
    const bool is_weights = i < files.size();
    const std::string& name = is_weights ? files[i].name : out.beside[i - files.size()].name;
    if (!source.input().find(name)) return {};
    Rest& rest = is_weights ? rests_[i] : beside[i - files.size()];
    XD_TRY(read_missing(name, rest));
    (is_weights ? out.rests[i] : out.beside[i - files.size()].rest_digest) = rest.digest->text();
    return {};
  };
  XD_TRY(run_schedule(schedule, session_.memory, session_.cancelled));
  return out;
}

}  // namespace crossdock::convert
