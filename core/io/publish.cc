// SPDX-License-Identifier: Apache-2.0
#include "core/io/publish.h"

#include "core/io/paths.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/file.h>

#include <boost/filesystem/operations.hpp>

#include <cerrno>

namespace crossdock::io {

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

namespace {

Result<void> rename_into_place(Os& os, const Publication& p) {
  const char* from = p.tree.c_str();
  const char* to = p.destination.c_str();
  if (os.renameat2(from, to, RENAME_NOREPLACE) == 0) return {};
  if (errno == EEXIST)
    return invalid(cat("expected ", to,
                       " to stay free, found that somebody made it meanwhile: choose another DST"));
  if (errno != EINVAL || os.renameat2(from, to, 0) != 0)
    return os_error(cat("rename ", from, " to ", to));
  return {};
}

// Whether the two names could be exchanged; false where the file system cannot do it.
Result<bool> exchange(Os& os, const Publication& p) {
  // Two processes that exchange would undo each other. Only file systems of one machine can
  // exchange, and there a lock holds for all processes.
  const std::string name = (p.control / "publishing").string();
  const Fd lock(os.openat(AT_FDCWD, name.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0666));
  if (!lock.valid()) return os_error(name);
  if (os.flock(lock.get(), LOCK_EX) != 0) {
    if (lacks_locks(errno)) return false;
    return os_error(cat("lock ", name));
  }
  struct stat tree {};
  if (::lstat(p.tree.c_str(), &tree) != 0 || tree.st_ino != p.tree_inode)
    return Error{XD_NOT_FOUND, cat(p.tree.string(), ": somebody has published it meanwhile")};
  if (os.renameat2(p.tree.c_str(), p.destination.c_str(), RENAME_EXCHANGE) == 0) return true;
  if (errno == EINVAL) return false;
  return os_error(cat("exchange ", p.tree.string(), " and ", p.destination.string()));
}

// Two renames, and for a moment no OUT. The second process finds the place of the old one taken.
Result<void> move_aside(Os& os, const Publication& p) {
  const std::string to = p.destination.string();
  const std::string old = (p.control / "replaced").string();
  if (os.renameat2(to.c_str(), old.c_str(), 0) != 0)
    return os_error(cat("rename ", to, " to ", old));
  if (os.renameat2(p.tree.c_str(), to.c_str(), 0) == 0) return {};
  Error error = os_error(cat("rename ", p.tree.string(), " to ", to));
  if (os.renameat2(old.c_str(), to.c_str(), 0) != 0)
    return std::move(error).in(cat("what was at ", to, " is now at ", old));
  return error;
}

}  // namespace

Result<void> publish(Os& os, const Publication& p) {
  // Again, at the last moment: a job may have saved something of its own there meanwhile.
  XD_TRY_SET(const bool is_there, check_destination(p.destination, p.overwrite));
  if (!is_there) return rename_into_place(os, p);
  XD_TRY_SET(const bool exchanged, exchange(os, p));
  return exchanged ? Result<void>() : move_aside(os, p);
}

Result<void> remove_tree(const fs::path& folder, const std::string& last) {
  boost::system::error_code ec;
  for (fs::directory_iterator it(folder, ec); !ec && it != fs::directory_iterator();
       it.increment(ec)) {
    if (it->path().filename() != last) fs::remove_all(it->path(), ec);
    if (ec) break;
  }
  if (!ec) fs::remove_all(folder, ec);
  if (ec && ec != boost::system::errc::no_such_file_or_directory)
    return Error{XD_IO, cat("remove ", folder.string(), ": ", ec.message())};
  return {};
}

}  // namespace crossdock::io
