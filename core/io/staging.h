// Output that appears whole or not at all.
//
// Everything is written under OUT.partial, beside OUT. commit() syncs once and renames it to OUT; a
// reader of OUT never sees half a checkpoint. An OUT.partial that a killed run left is taken over
// by the next one; one that a live run holds (flock) is not. Replacing an old OUT exchanges the two
// names first and removes the old one after.
//
//   Staging staging = *Staging::open(os, out, /*overwrite=*/false);
//   auto object = staging.create("global_step0/latest", 12);
//   object->write(0, bytes);  object->seal();
//   staging.commit(report, /*sync=*/true);     // or the destructor removes everything
//
// Threads: create() may be called from any; the rest from one.
#pragma once

#include "core/io/os.h"
#include "core/io/paths.h"
#include "core/io/staged_object.h"

#include <memory>
#include <mutex>
#include <set>
#include <string>

namespace crossdock::io {

// Whether a folder is at DST that a commit would replace; an error when something is there that may
// not be.
Result<bool> check_destination(const fs::path& destination, bool overwrite);

class Staging {
 public:
  static Result<std::unique_ptr<Staging>> open(Os& os, const fs::path& destination, bool overwrite);
  ~Staging();  // removes what was not committed

  Result<std::unique_ptr<StagedObject>> create(const std::string& name, uint64_t size);
  // Writes the report, syncs, and makes OUT appear. After it nothing can be created.
  Result<void> commit(const std::string& report, bool sync);

  const fs::path& destination() const { return destination_; }

 private:
  Staging(Os& os, fs::path destination, bool overwrite)
      : os_(os),
        destination_(std::move(destination)),
        partial_(destination_.string() + ".partial"),
        overwrite_(overwrite) {}
  Result<void> take_partial();
  Result<void> make_parents(const std::string& name);
  Result<void> publish();
  Result<void> replace();

  Os& os_;
  const fs::path destination_;
  const fs::path partial_;
  fs::path made_parent_;  // the first folder above OUT that we had to make, or empty
  const bool overwrite_;
  bool replaces_ = false;
  bool made_ = false;  // OUT.partial, empty
  bool open_ = false;  // it is ours to fill and to remove
  Fd dir_;             // holds the lock
  std::mutex mutex_;
  std::set<std::string> folders_;
};

}  // namespace crossdock::io
