// SPDX-License-Identifier: Apache-2.0

// The files of a conversion while they are written: what of each is there, what its items gave
// back, and the digests in the end. What is done is noted in the journal, and taken from the
// journals of others.
#pragma once

#include "core/convert/planning.h"
#include "core/convert/record.h"
#include "core/convert/session.h"
#include "core/convert/source_proof.h"
#include "core/convert/tensor_digests.h"
#include "core/convert/tensor_service.h"
#include "core/io/staging.h"
#include "core/report/report.h"

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

namespace crossdock::convert {

// Files have numbers: the plan's objects in its order, then the source's files that are copied.
class Outputs {
 public:
  // All outlive it. `digests`: of the source's tensors. `is_noted`: in the journal.
  Outputs(io::Staging& staging, const Prepared& prepared, const Planned& planned,
          TensorDigests& digests, SourceProver& prover, bool is_noted);

  size_t size() const { return files_.size(); }
  const std::string& path(uint64_t file) const;
  uint64_t bytes(uint64_t file) const;  // its size; the most that it may be until it is known
  bool is_done(uint64_t file) const { return files_[file].is_done; }
  bool is_done(const plugin::PlanItem& item) const;
  std::vector<uint64_t> missing() const;  // files that are not done

  // Takes what other attempts have finished, and of the `wanted` files what they have begun, where
  // that may be taken over. [one thread, before or after all writing]
  Result<void> take(std::span<const io::Attempt> attempts, const std::vector<bool>& wanted);

  // What an item has done, before it is noted.
  struct Item {
    Record record;
    std::vector<SourceProver::Range> rests;
  };
  // Runs an item, which may read these tensors. [any]
  Result<Item> write(const plugin::PlanItem& item, TensorService::Item& tensors);
  // Notes it, once all that it read has been handed in to the digests; the last one of an object
  // seals it. [any]
  Result<void> finish(const plugin::PlanItem& item, Item done);
  // An object without items: the writer makes all of it when it is sealed. [any]
  Result<void> seal(uint64_t file, Record record = {});
  // One of the source's files, through a buffer of these bytes. [any]
  Result<void> copy(uint64_t file, std::span<std::byte> buffer, const std::atomic<bool>& cancelled);

  // Once all are done: all but the report, by their numbers.
  std::vector<report::File> files() const;
  // What the writer had to say, by the files' order.
  std::vector<std::string> notes() const;

 private:
  // Its items may run on several threads.
  struct File {
    std::mutex mutex;
    std::unique_ptr<io::StagedObject> staged;     // from its first use until it is sealed
    std::vector<xd_bytes> results;                // of its items, by their numbers
    std::vector<std::vector<std::string>> notes;  // the same
    std::vector<bool> written;                    // the same
    uint32_t items_left = 0;
    Record unnoted;  // what items saw that cannot be gone on with one by one
    std::string digest;
    uint64_t size = 0;  // where it is known only when the file is sealed
    bool is_done = false;
  };
  using Begun = std::map<uint64_t, std::vector<Record>>;  // by file

  bool can_go_on(uint64_t file) const;  // with an item after a kill
  bool is_sized_at_seal(uint64_t file) const {
    return !is_aux(file) && planned_.plan.objects[file].is_sized_at_seal();
  }
  bool is_aux(uint64_t file) const { return file >= planned_.plan.objects.size(); }
  Result<xd_object> stage(uint64_t file);
  Result<void> place(uint64_t file, Record record);
  Result<void> note(const Record& record);
  void take_finished(const Record& record);
  Result<void> take_begun(const io::Attempt& attempt, uint64_t file, std::vector<Record> records);
  bool fits(const Record& record) const;
  void add_seen(const Record& record);
  std::vector<Seen> tensors_seen(const plugin::PlanItem& item);
  std::vector<Seen> rests_seen(const std::vector<SourceProver::Range>& read);

  io::Staging& staging_;
  const Prepared& prepared_;
  const Planned& planned_;
  TensorDigests& digests_;
  SourceProver& prover_;
  const bool is_noted_;
  std::vector<File> files_;
};

}  // namespace crossdock::convert
