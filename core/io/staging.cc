#include "core/io/staging.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/file.h>

#include <boost/filesystem/operations.hpp>

#include <cerrno>

namespace crossdock::io {

namespace {
// Marks an OUT.partial as ours from its first moment on, so that a later run may clear it.
constexpr char kMarker[] = ".crossdock-partial";

// Whether a folder that stands in OUT.partial's place is the rest of a run of ours: marked, empty,
// or an old OUT that was exchanged and not yet removed.
bool is_leftover(const fs::path& folder) {
  boost::system::error_code ec;
  return fs::exists(folder / kMarker, ec) || fs::is_empty(folder, ec) ||
         check_is_all_ours(folder).has_value();
}

// The report goes last, so that a removal that is cut short still leaves a folder known as ours.
Result<void> remove_tree(const fs::path& folder) {
  boost::system::error_code ec;
  for (fs::directory_iterator it(folder, ec); !ec && it != fs::directory_iterator();
       it.increment(ec)) {
    const std::string base = it->path().filename().string();
    if (base != kReportName && base != kMarker) fs::remove_all(it->path(), ec);
    if (ec) break;
  }
  if (!ec) fs::remove_all(folder, ec);
  if (ec && ec != boost::system::errc::no_such_file_or_directory)
    return Error{XD_IO, cat("remove ", folder.string(), ": ", ec.message())};
  return {};
}
}  // namespace

Result<bool> check_destination(const fs::path& destination, bool overwrite) {
  boost::system::error_code ec;
  const fs::file_status status = fs::symlink_status(destination, ec);
  if (status.type() == fs::file_not_found) return false;
  if (status.type() == fs::status_error)
    return Error{XD_IO, cat(destination.string(), ": ", ec.message())};
  if (status.type() == fs::symlink_file) {
    return invalid(cat("expected DST to be a folder to make, found a symbolic link at ",
                       destination.string(), ": name the folder it leads to, or another"));
  }
  if (status.type() != fs::directory_file) {
    return invalid(cat("expected DST to be a folder to make, found a file at ",
                       destination.string(), ": choose another name"));
  }
  // The kernel knows bind mounts too, which have the same device as the folder above.
  struct statx st {};
  if (::statx(AT_FDCWD, destination.c_str(), AT_SYMLINK_NOFOLLOW, STATX_INO, &st) != 0)
    return os_error(destination.string());
  if (st.stx_attributes & STATX_ATTR_MOUNT_ROOT) {
    return invalid(cat("expected DST to be a folder to make, found a mount point at ",
                       destination.string(), ": name a folder inside it"));
  }
  if (fs::is_empty(destination, ec)) return true;
  if (!overwrite) {
    return invalid(
        cat("expected DST to be new or empty, found files in ", destination.string(),
            ": choose another folder, or --overwrite to replace what crossdock wrote there"));
  }
  XD_TRY(check_is_all_ours(destination));
  return true;
}

Result<std::unique_ptr<Staging>> Staging::open(Os& os, const fs::path& destination,
                                               bool overwrite) {
  std::unique_ptr<Staging> self(new Staging(os, destination, overwrite));
  boost::system::error_code ec;
  XD_TRY_SET(self->replaces_, check_destination(destination, overwrite));
  for (fs::path p = destination.parent_path(); !fs::exists(p, ec) && p.has_parent_path();
       p = p.parent_path())
    self->made_parent_ = p;
  fs::create_directories(destination.parent_path(), ec);
  if (ec) return Error{XD_IO, cat("make ", destination.parent_path().string(), ": ", ec.message())};
  XD_TRY(self->take_partial());
  return self;
}

Result<void> Staging::take_partial() {
  const auto busy = [this] {
    made_ = false;  // theirs
    return Error{XD_IO, cat("expected to be the only one to write ", destination_.string(),
                            ", found another crossdock at work in ", partial_.string(),
                            ": wait for it, or choose another DST")};
  };
  made_ = os_.mkdirat(AT_FDCWD, partial_.c_str(), 0777) == 0;
  if (!made_ && errno != EEXIST) return os_error("make " + partial_.string());
  dir_ = Fd(
      os_.openat(AT_FDCWD, partial_.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0));
  if (!dir_.valid()) return os_error(partial_.string());
  if (os_.flock(dir_.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return os_error("lock " + partial_.string());
    return busy();
  }
  // Between our open and our lock its owner may have renamed or removed it.
  struct stat locked {
  }, there{};
  if (os_.fstat(dir_.get(), &locked) != 0) return os_error(partial_.string());
  if (::lstat(partial_.c_str(), &there) != 0 || there.st_ino != locked.st_ino ||
      there.st_dev != locked.st_dev)
    return busy();
  if (!made_) {
    if (!is_leftover(partial_)) {
      return invalid(cat(
          "expected ", partial_.string(),
          " to be free for staging, found a folder that is not crossdock's there: move it away"));
    }
    boost::system::error_code ec;
    for (fs::directory_iterator it(partial_, ec); !ec && it != fs::directory_iterator();
         it.increment(ec)) {
      if (it->path().filename() != kMarker) fs::remove_all(it->path(), ec);
      if (ec) break;
    }
    if (ec) return Error{XD_IO, cat("clear ", partial_.string(), ": ", ec.message())};
  }
  open_ = true;
  const Fd marker(
      os_.openat(dir_.get(), kMarker, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0666));
  if (!marker.valid()) return os_error((partial_ / kMarker).string());
  return {};
}

Staging::~Staging() {
  if (open_) {
    (void)remove_tree(partial_);
  } else if (made_) {
    (void)os_.unlinkat(AT_FDCWD, partial_.c_str(), AT_REMOVEDIR);
  }
  boost::system::error_code ec;
  for (fs::path p = destination_.parent_path(); !made_parent_.empty() && is_inside(p, made_parent_);
       p = p.parent_path()) {
    fs::remove(p, ec);  // empty ones only
    if (ec) break;
  }
}

Result<void> Staging::make_parents(const std::string& name) {
  const std::lock_guard lock(mutex_);
  for (size_t slash = name.find('/'); slash != name.npos; slash = name.find('/', slash + 1)) {
    const std::string folder = name.substr(0, slash);
    if (!folders_.insert(folder).second) continue;
    if (os_.mkdirat(dir_.get(), folder.c_str(), 0777) != 0) {
      folders_.erase(folder);  // else another thread would take it to be there
      return os_error("make " + (partial_ / folder).string());
    }
  }
  return {};
}

Result<std::unique_ptr<StagedObject>> Staging::create(const std::string& name, uint64_t size) {
  if (!is_safe_name(name) || name == kReportName || name == kMarker)
    return invalid(cat("expected a plain relative name for an output file, found ", name));
  XD_TRY(make_parents(name));
  Fd fd(os_.openat(dir_.get(), name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                   0666));
  if (!fd.valid()) return os_error("make " + (partial_ / name).string());
  if (os_.ftruncate(fd.get(), size) != 0)
    return os_error(cat("make ", (partial_ / name).string(), " of ", size, " bytes"));
  return std::make_unique<StagedObject>(os_, std::move(fd), name, size);
}

Result<void> Staging::commit(const std::string& report, bool sync) {
  {
    Fd fd(os_.openat(dir_.get(), kReportName, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                     0666));
    if (!fd.valid()) return os_error("make " + (partial_ / kReportName).string());
    if (auto r = write_exact(os_, fd.get(), 0, as_bytes(report)); !r)
      return std::move(r).error().in(kReportName);
    if (os_.close(fd.release()) != 0) return os_error((partial_ / kReportName).string());
  }
  if (os_.unlinkat(dir_.get(), kMarker, 0) != 0) return os_error((partial_ / kMarker).string());
  // One sync of the file system for everything: an fsync per file would cost a journal commit each.
  if (sync && os_.syncfs(dir_.get()) != 0) return os_error("sync " + partial_.string());
  const std::string parent = destination_.parent_path().string();
  const Fd parent_fd(os_.openat(AT_FDCWD, parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0));
  if (!parent_fd.valid()) return os_error(parent);
  XD_TRY(replaces_ ? replace() : publish());
  if (sync && os_.fsync(parent_fd.get()) != 0)
    return os_error(cat(destination_.string(), " is in place, but sync ", parent));
  return {};
}

Result<void> Staging::publish() {
  const char* from = partial_.c_str();
  const char* to = destination_.c_str();
  if (os_.renameat2(from, to, RENAME_NOREPLACE) != 0) {
    if (errno == EEXIST)
      return invalid(
          cat("expected ", to,
              " to stay free, found that somebody made it meanwhile: choose another DST"));
    if (errno != EINVAL || os_.renameat2(from, to, 0) != 0)
      return os_error(cat("rename ", from, " to ", to));
  }
  made_ = open_ = false;
  return {};
}

Result<void> Staging::replace() {
  const char* from = partial_.c_str();
  const char* to = destination_.c_str();
  const auto removed = [&](const fs::path& old) -> Result<void> {
    if (auto r = remove_tree(old); !r)
      return std::move(r).error().in(cat(to, " is in place, but the old one is not gone"));
    return {};
  };
  // Again, at the last moment: a job may have saved something of its own there meanwhile.
  XD_TRY_SET(const bool still_there, check_destination(destination_, overwrite_));
  if (!still_there) return publish();
  // The old one gets our lock too: under the name OUT.partial it would look like a rest that
  // another run may take over.
  const Fd old_dir(os_.openat(AT_FDCWD, to, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0));
  if (!old_dir.valid() ||
      (os_.flock(old_dir.get(), LOCK_EX | LOCK_NB) != 0 && errno != EWOULDBLOCK))
    return os_error(cat("lock ", to));
  if (os_.renameat2(from, to, RENAME_EXCHANGE) == 0) {
    made_ = open_ = false;
    return removed(partial_);
  }
  if (errno != EINVAL) return os_error(cat("exchange ", from, " and ", to));
  // A file system without the exchange (some network ones): two renames, and for a moment no OUT.
  const std::string old = destination_.string() + ".replaced";
  if (os_.renameat2(to, old.c_str(), 0) != 0) return os_error(cat("rename ", to, " to ", old));
  if (os_.renameat2(from, to, 0) != 0) {
    Error error = os_error(cat("rename ", from, " to ", to));
    if (os_.renameat2(old.c_str(), to, 0) != 0)
      return std::move(error).in(cat("what was at ", to, " is now at ", old));
    return error;
  }
  made_ = open_ = false;
  return removed(old);
}

}  // namespace crossdock::io
