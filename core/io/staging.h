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
// Threads: create(), and an object's write() and zero(), may be called from any; the rest from one.
#pragma once

#include "core/io/digest.h"
#include "core/io/os.h"
#include "core/io/paths.h"

#include <crossdock/bytes.hpp>

#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

namespace crossdock::io {

// Digests of objects that are nearly all zeros, by what was written into them. The moments of every
// parameter of one shape are the same file, so each such file is digested once. Thread-safe.
class HollowDigests {
 public:
  std::optional<std::string> find(const std::string& recipe) const;
  void add(const std::string& recipe, const std::string& digest);

 private:
  mutable std::mutex mutex_;
  std::unordered_map<std::string, std::string> digests_;
};

// Whether a folder is at DST that a commit would replace; an error when something is there that may
// not be.
Result<bool> check_destination(const fs::path& destination, bool overwrite);

// One output file of a size known beforehand. Every byte must be written, or declared zero, exactly
// once.
class StagedObject {
 public:
  StagedObject(Os& os, HollowDigests& hollow, Fd fd, std::string name, uint64_t size)
      : os_(os), hollow_(hollow), fd_(std::move(fd)), name_(std::move(name)), size_(size) {}

  const std::string& name() const { return name_; }
  uint64_t size() const { return size_; }

  Result<void> write(uint64_t offset, std::span<const std::byte> bytes);
  Result<void> zero(uint64_t offset, uint64_t n);  // a hole where the file system has them
  // Checks that nothing is missing, and gives the file's digest. Closes the file.
  Result<std::string> seal();

 private:
  struct Written {
    uint64_t begin, end;
    bool operator<(const Written& other) const { return begin < other.begin; }
  };
  Result<void> claim(uint64_t offset, uint64_t n);
  void digest(uint64_t offset, std::span<const std::byte> bytes);
  void digest_zeros(uint64_t offset, uint64_t n);
  void digest_pending();
  Result<void> read_back();
  Result<void> close();

  Os& os_;
  HollowDigests& hollow_;
  Fd fd_;
  const std::string name_;
  const uint64_t size_;

  std::mutex mutex_;
  std::set<Written> written_;  // disjoint, adjacent ones merged
  // The digest streams while writes come in order; from the first one that does not, seal() reads
  // the rest back.
  Digest digest_;
  uint64_t digested_ = 0;
  // What was written in order and is not yet in digest_: little more than some headers around runs
  // of zeros.
  struct Step {
    std::string bytes;
    uint64_t zeros;  // after the bytes
  };
  std::vector<Step> pending_;
  uint64_t pending_bytes_ = 0;
  bool hollow_so_far_ = true;
};

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
  HollowDigests hollow_;
  std::mutex mutex_;
  std::set<std::string> folders_;
};

}  // namespace crossdock::io
