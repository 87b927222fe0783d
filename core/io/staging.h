// SPDX-License-Identifier: Apache-2.0

// Output that appears whole or not at all, that a later run can go on with, and that several
// processes, on several machines, can write together.
//
//   OUT.partial/.crossdock-partial         says whose folder it is
//               tree/                      what becomes OUT: finished files only
//               parts/plan                 what is made here, set once
//               parts/ATTEMPT/             the files that a run works on, by numbers
//               parts/ATTEMPT.journal      what it has done
//
// Each run is an attempt of its own name, whose folder and journal no other writes. A file is
// written there, renamed into the tree, and then told in the journal: what no journal tells is not
// done. So nothing depends on who is alive: two that do the same write the same bytes, and the
// later rename replaces a file by its equal. Whoever finds all files there publishes (publish.h).
// A file that was not finished is taken over only where no other machine can be writing it.
//
// `flock` on OUT.partial tells a second run of this machine that it is not alone, which is a
// courtesy: many network file systems have no such lock, and nothing here needs it.
//
//   auto staging = *Staging::open(os, out, {});
//   auto object = *staging->create(0, "global_step0/latest", 12);
//   object->write(0, bytes);  object->seal();  staging->place(0, "global_step0/latest");
//   staging->journal().append(record);
//   staging->publish(report);              // or the destructor removes everything, unless
//   keep(true)
//
// Threads: create(), take_over() and place() may be called from any; the rest from one.
#pragma once

#include "core/io/attempt.h"
#include "core/io/journal.h"
#include "core/io/os.h"
#include "core/io/paths.h"
#include "core/io/staged_object.h"

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

namespace crossdock::io {

struct StagingOptions {
  bool overwrite = false;  // an OUT that crossdock wrote
  bool shared = false;     // other processes work on the same OUT: nothing of theirs is cleared
  bool joins = false;      // others: what is not there is not made (XD_NOT_FOUND)
  bool restart = false;    // what an earlier run left is cleared, whatever it is
  bool sync = true;        // to the disk, now and then and in the end
  // What is made here. Runs that have the same text make the same files.
  std::string plan = "";
  // How another run's text differs from ours, for the user; empty: not at all.
  std::function<std::string(const std::string& theirs)> difference = [](const std::string&) {
    return std::string();
  };
};

class Staging {
 public:
  static Result<std::unique_ptr<Staging>> open(Os& os, const fs::path& destination,
                                               StagingOptions options);
  ~Staging();  // removes what was not published, of others nothing

  // The other attempts at OUT and what they tell that counts, read now.
  Result<std::vector<Attempt>> attempts();

  // A file of the tree, by a number that no other has; staged_object.h tells the rest.
  Result<std::unique_ptr<StagedObject>> create(uint64_t number, const std::string& name,
                                               uint64_t size, bool is_sized_at_seal = false);
  // The same file as another attempt left it; nothing where that is not there, or not ours to take.
  Result<std::unique_ptr<StagedObject>> take_over(const Attempt& from, uint64_t number,
                                                  const std::string& name, uint64_t size);
  // A sealed file comes into the tree, where an equal one may lie.
  Result<void> place(uint64_t number, const std::string& name);
  // The files in the tree, with their sizes.
  Result<std::map<std::string, uint64_t>> placed();

  Journal& journal() { return *journal_; }
  // A name that no other process uses, on the disk of OUT.
  fs::path probe() const { return own_ / "probe"; }
  // What is done now stays, whatever happens to the machine.
  Result<void> sync();

  // The report is put into the tree, and the tree becomes OUT, after a sync. After it nothing can
  // be created.
  Result<void> publish(const std::string& report);
  bool has_published() const { return published_; }
  // Whether the tree is OUT now, and that not by us.
  bool is_published_by_others() const;
  // Whether what is there stays when the staging ends; without a word what an earlier run left
  // does.
  void keep(bool is_kept) { kept_ = is_kept; }

  const fs::path& destination() const { return destination_; }
  const fs::path& partial() const { return partial_; }
  const fs::path& tree() const { return tree_; }

 private:
  Staging(Os& os, fs::path destination, StagingOptions options);
  Result<void> take_partial();
  Result<void> lock();
  Result<void> look_at_leftovers(bool is_new);
  Result<void> clear();
  Result<void> begin_attempt();
  Result<void> agree_on_plan();
  Result<void> make_parents(const std::string& name);
  Result<Fd> open_file(uint64_t number, const std::string& name, int flags);
  fs::path file(uint64_t number) const { return own_ / std::to_string(number); }
  Result<void> find_tree();
  bool is_alone() const;
  Result<void> remove_renamed();
  void start_syncing();
  void sync_now_and_then(const std::stop_token& stop);

  Os& os_;
  const StagingOptions options_;
  const fs::path destination_, partial_, tree_, parts_;
  const std::string name_;   // of this attempt
  const fs::path own_;       // its folder
  uint64_t tree_inode_ = 0;  // by which the tree is known, wherever it is moved to
  fs::path made_parent_;     // the first folder above OUT that we had to make, or empty
  bool made_ = false;        // OUT.partial, empty
  bool open_ = false;        // it is there to be filled, and to be removed
  bool kept_ = false;
  bool published_ = false;
  Fd dir_;  // holds the lock
  std::unique_ptr<Journal> journal_;
  std::mutex mutex_;
  std::set<std::string> folders_;  // of the tree, that are there
  std::mutex sync_mutex_;
  std::optional<Error> sync_error_;  // what the thread met
  std::jthread syncing_;
};

}  // namespace crossdock::io
