// SPDX-License-Identifier: Apache-2.0
#include "core/convert/outputs.h"

#include "core/model/check.h"

#include <algorithm>
#include <utility>

namespace crossdock::convert {

Outputs::Outputs(io::Staging& staging, const Prepared& prepared, const Planned& planned,
                 TensorDigests& digests, SourceProver& prover, bool is_noted)
    : staging_(staging),
      prepared_(prepared),
      planned_(planned),
      digests_(digests),
      prover_(prover),
      is_noted_(is_noted),
      files_(planned.plan.objects.size() + planned.plan.aux.size()) {
  for (size_t i = 0; i < planned.plan.objects.size(); ++i) {
    const uint32_t n = planned.plan.objects[i].n_items;
    files_[i].items_left = n;
    files_[i].results.resize(n);
    files_[i].written.resize(n);
    files_[i].notes.resize(size_t{n} + 1);  // the last are those of the seal
  }
}

const std::string& Outputs::path(uint64_t file) const {
  const plugin::Plan& plan = planned_.plan;
  return is_aux(file) ? plan.aux[file - plan.objects.size()].first : plan.objects[file].path;
}

uint64_t Outputs::bytes(uint64_t file) const {
  const plugin::Plan& plan = planned_.plan;
  if (is_sized_at_seal(file) && is_done(file)) return files_[file].size;
  if (!is_aux(file)) return plan.objects[file].size;
  const uint64_t aux = plan.aux[file - plan.objects.size()].second;
  return prepared_.source->aux_size(prepared_.target.aux_files[aux]);
}

bool Outputs::is_done(const plugin::PlanItem& item) const {
  return files_[item.object].is_done || files_[item.object].written[item.number];
}

// Items of other objects stand at places that are known beforehand, whichever run writes them.
bool Outputs::can_go_on(uint64_t file) const {
  return !is_aux(file) && planned_.plan.objects[file].flags == 0;
}

std::vector<uint64_t> Outputs::missing() const {
  std::vector<uint64_t> out;
  for (uint64_t i = 0; i < files_.size(); ++i) {
    if (!files_[i].is_done) out.push_back(i);
  }
  return out;
}

// Files are made when they are first written, so that a plan of 100,000 has only as many open as
// there are threads.
Result<xd_object> Outputs::stage(uint64_t file) {
  File& f = files_[file];
  const std::lock_guard lock(f.mutex);
  if (!f.staged) {
    XD_TRY_SET(f.staged, staging_.create(file, path(file), bytes(file), is_sized_at_seal(file)));
  }
  return xd_object{f.staged.get()};
}

Result<Outputs::Item> Outputs::write(const plugin::PlanItem& item, TensorService::Item& tensors) {
  XD_TRY_SET(xd_object handle, stage(item.object));
  File& file = files_[item.object];
  Item out;
  out.record.file = item.object;
  out.record.item = item.number;
  handle.written = &out.record.bytes;
  XD_TRY(planned_.writer.write_item(item, path(item.object), tensors, handle,
                                    file.results[item.number]));
  out.record.notes = tensors.notes().take();
  out.rests = tensors.take_rests();
  return out;
}

namespace {
void move_to(std::vector<Seen>& to, std::vector<Seen>& from) {
  to.insert(to.end(), std::make_move_iterator(from.begin()), std::make_move_iterator(from.end()));
}

// With a merged parent a node may say more than what the item saw, which is as true.
Seen seen_of(uint64_t index, const io::TreeDigest& digest, io::ByteRange range) {
  return {index, digest.nodes(range), digest.parts(range)};
}

void add_to(io::TreeDigest& digest, const Seen& seen) {
  std::vector<io::TreeNode> nodes = seen.nodes;
  std::erase_if(nodes, [&digest](const io::TreeNode& node) { return !digest.can_have(node); });
  digest.add(nodes);
  for (const auto& part : seen.parts) {
    if (digest.can_have(part)) digest.add(part);
  }
}
}  // namespace

std::vector<Seen> Outputs::tensors_seen(const plugin::PlanItem& item) {
  std::vector<Seen> out;
  for (const plugin::PlanNeed& need : item.needs) {
    const manifest::DType dtype = prepared_.tensors->manifest().tensors[need.tensor].dtype;
    const auto begin = manifest::dense_bytes(dtype, need.begin);
    const auto end = manifest::dense_bytes(dtype, need.begin + need.count);
    if (!begin || !end) continue;  // within a byte: its leaf is read again
    out.push_back(seen_of(need.tensor, digests_[need.tensor], {*begin, *end}));
  }
  return out;
}

std::vector<Seen> Outputs::rests_seen(const std::vector<SourceProver::Range>& read) {
  std::vector<Seen> out;
  for (const auto& range : read)
    out.push_back(seen_of(range.file, *prover_.rest(range.file), range.bytes));
  return out;
}

Result<void> Outputs::note(const Record& record) {
  return is_noted_ ? staging_.journal().append(encode(record)) : Result<void>();
}

Result<void> Outputs::finish(const plugin::PlanItem& item, Item done) {
  File& file = files_[item.object];
  Record& record = done.record;
  if (is_noted_) {
    record.tensors = tensors_seen(item);
    record.rests = rests_seen(done.rests);
  }
  file.notes[item.number] = record.notes;
  bool is_last = false;
  {
    const std::lock_guard lock(file.mutex);
    file.written[item.number] = true;
    is_last = --file.items_left == 0;
    if (!can_go_on(item.object)) {
      move_to(file.unnoted.tensors, record.tensors);
      move_to(file.unnoted.rests, record.rests);
    }
  }
  // Whoever finishes the last item seals: by then all results are there.
  if (is_last)
    return seal(item.object, can_go_on(item.object) ? std::move(record) : std::move(file.unnoted));
  if (!can_go_on(item.object)) return {};
  if (!is_noted_) return {};
  record.result = file.results[item.number].data;
  record.nodes = file.staged->nodes_of(record.bytes);
  return note(record);
}

Result<void> Outputs::seal(uint64_t file, Record record) {
  XD_TRY_SET(xd_object handle, stage(file));
  File& f = files_[file];
  {
    plugin::NoteSink notes;
    handle.is_sealing = true;
    XD_TRY(planned_.writer.seal(static_cast<uint32_t>(file), path(file), handle, f.results, notes));
    f.notes.back() = notes.take();
  }
  return place(file, std::move(record));
}

Result<void> Outputs::place(uint64_t file, Record record) {
  File& f = files_[file];
  auto digest = f.staged->seal();
  if (!digest && digest.error().code == XD_INTERNAL && !is_aux(file))  // not every byte was written
    return plugin::named(std::move(digest).error(), planned_.writer.spec("seal"));
  XD_TRY_SET(f.digest, std::move(digest));
  f.size = f.staged->size();
  f.staged.reset();
  XD_TRY(staging_.place(file, path(file)));
  Record finished;
  finished.file = file;
  finished.digest = f.digest;
  finished.size = f.size;
  finished.tensors = std::move(record.tensors);
  finished.rests = std::move(record.rests);
  for (const auto& notes : f.notes)
    finished.notes.insert(finished.notes.end(), notes.begin(), notes.end());
  XD_TRY(note(finished));
  f.results.clear();
  f.is_done = true;
  return {};
}

Result<void> Outputs::copy(uint64_t file, std::span<std::byte> buffer,
                           const std::atomic<bool>& cancelled) {
  const uint64_t aux = planned_.plan.aux[file - planned_.plan.objects.size()].second;
  const manifest::AuxFile& source = prepared_.target.aux_files[aux];
  const uint64_t size = bytes(file);
  XD_TRY(stage(file));
  for (uint64_t at = 0; at < size;) {
    const auto piece = buffer.first(std::min<uint64_t>(buffer.size(), size - at));
    XD_TRY(prepared_.source->read_aux(source, at, piece));
    XD_TRY(files_[file].staged->write(at, piece));
    at += piece.size();
    if (cancelled) return Error{XD_CANCELLED, "cancelled"};
  }
  return place(file, {});
}

// A journal's numbers are checked like any input's.
bool Outputs::fits(const Record& record) const {
  if (record.file >= files_.size()) return false;
  if (!record.item && !io::is_tree_digest(record.digest)) return false;
  if (!record.item) return is_sized_at_seal(record.file) || record.size == bytes(record.file);
  return can_go_on(record.file) && *record.item < files_[record.file].written.size();
}

void Outputs::add_seen(const Record& record) {
  for (const Seen& seen : record.tensors) {
    if (seen.index < digests_.size()) add_to(digests_[seen.index], seen);
  }
  for (const Seen& seen : record.rests) {
    if (io::TreeDigest* rest = prover_.rest(seen.index)) add_to(*rest, seen);
  }
}

void Outputs::take_finished(const Record& record) {
  File& file = files_[record.file];
  add_seen(record);
  if (file.is_done) return;
  file.is_done = true;
  file.digest = record.digest;
  file.size = record.size;
  file.notes = {record.notes};
  file.written.assign(file.written.size(), true);
}

Result<void> Outputs::take_begun(const io::Attempt& attempt, uint64_t number,
                                 std::vector<Record> records) {
  File& file = files_[number];
  if (file.is_done || file.staged) return {};
  XD_TRY_SET(auto staged, staging_.take_over(attempt, number, path(number), bytes(number)));
  if (!staged) return {};
  for (Record& record : records) {
    if (file.written[*record.item]) continue;
    std::vector<io::TreeNode> nodes = record.nodes;
    std::erase_if(nodes, [&](const io::TreeNode& node) { return !staged->can_have(node); });
    // A record that contradicts another is not ours to mend: its item is written again.
    if (!staged->take_as_written(record.bytes, nodes)) continue;
    file.written[*record.item] = true;
    file.results[*record.item].data = record.result;
    file.notes[*record.item] = record.notes;
    --file.items_left;
    add_seen(record);
    XD_TRY(note(record));
  }
  file.staged = std::move(staged);
  return {};
}

Result<void> Outputs::take(std::span<const io::Attempt> attempts, const std::vector<bool>& wanted) {
  if (attempts.empty()) return {};
  XD_TRY_SET(const auto placed, staging_.placed());
  std::vector<Begun> begun(attempts.size());
  for (size_t i = 0; i < attempts.size(); ++i) {
    for (const std::string& bytes : attempts[i].records) {
      auto record = decode_record(bytes);
      if (!record || !fits(*record)) continue;
      if (record->item) {
        if (wanted[record->file]) begun[i][record->file].push_back(*std::move(record));
        continue;
      }
      const auto it = placed.find(path(record->file));
      if (it != placed.end() && it->second == record->size) take_finished(*record);
    }
  }
  // Of several attempts at one file the one that did most.
  for (uint64_t file = 0; file < files_.size(); ++file) {
    std::vector<size_t> order;
    for (size_t i = 0; i < attempts.size(); ++i) {
      if (begun[i].contains(file)) order.push_back(i);
    }
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
      return begun[a][file].size() > begun[b][file].size();
    });
    for (const size_t i : order) XD_TRY(take_begun(attempts[i], file, std::move(begun[i][file])));
  }
  return {};
}

std::vector<report::File> Outputs::files() const {
  std::vector<report::File> out;
  for (uint64_t i = 0; i < files_.size(); ++i) out.push_back({path(i), bytes(i), files_[i].digest});
  return out;
}

std::vector<std::string> Outputs::notes() const {
  std::vector<std::string> out;
  for (const File& file : files_) {
    for (const auto& notes : file.notes) out.insert(out.end(), notes.begin(), notes.end());
  }
  return out;
}

}  // namespace crossdock::convert
