// SPDX-License-Identifier: Apache-2.0
#include "core/io/staging.h"

#include "core/io/leftovers.h"
#include "core/io/publish.h"

#include <fcntl.h>
#include <sys/file.h>

#include <boost/filesystem/operations.hpp>

#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <system_error>

namespace crossdock::io {

namespace {

// A machine that goes down loses the work since the last sync.
constexpr auto kSyncInterval = std::chrono::seconds(10);
// A folder that somebody publishes, and so removes, meanwhile is looked for again.
constexpr int kMaxTries = 20;

Result<uint64_t> inode_of(const fs::path& path) {
  struct stat st {};
  if (::lstat(path.c_str(), &st) != 0) return os_error(path.string());
  return st.st_ino;
}

Result<void> write_text(Os& os, const fs::path& path, const std::string& text) {
  Fd fd(os.openat(AT_FDCWD, path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                  0666));
  if (!fd.valid()) return os_error("make " + path.string());
  if (auto r = write_exact(os, fd.get(), 0, as_bytes(text)); !r)
    return std::move(r).error().in(path.string());
  if (os.close(fd.release()) != 0) return os_error(path.string());
  return {};
}

}  // namespace

Staging::Staging(Os& os, fs::path destination, StagingOptions options)
    : os_(os),
      options_(std::move(options)),
      destination_(std::move(destination)),
      partial_(partial_of(destination_)),
      tree_(partial_ / "tree"),
      parts_(partial_ / "parts"),
      name_(new_attempt_name(Runner::self())),
      own_(parts_ / name_) {}

Result<std::unique_ptr<Staging>> Staging::open(Os& os, const fs::path& destination,
                                               StagingOptions options) {
  std::unique_ptr<Staging> self(new Staging(os, destination, std::move(options)));
  boost::system::error_code ec;
  XD_TRY(check_destination(destination, self->options_.overwrite));
  for (fs::path p = destination.parent_path(); !fs::exists(p, ec) && p.has_parent_path();
       p = p.parent_path())
    self->made_parent_ = p;
  fs::create_directories(destination.parent_path(), ec);
  if (ec) return Error{XD_IO, cat("make ", destination.parent_path().string(), ": ", ec.message())};
  XD_TRY(self->take_partial());
  XD_TRY(self->begin_attempt());
  for (const fs::path& folder : being_removed(destination)) (void)remove_tree(folder, kMarker);
  if (self->options_.sync) self->start_syncing();
  return self;
}

Result<void> Staging::lock() {
  const auto busy = [this] {
    made_ = false;  // theirs
    return Error{XD_IO, cat("expected to be the only one to write ", destination_.string(),
                            ", found another crossdock at work in ", partial_.string(),
                            ": wait for it, or choose another DST")};
  };
  if (os_.flock(dir_.get(), (options_.shared ? LOCK_SH : LOCK_EX) | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) return busy();
    if (!lacks_locks(errno)) return os_error("lock " + partial_.string());
  }
  // Between our open and our lock its owner may have renamed or removed it.
  struct stat locked {
  }, there{};
  if (os_.fstat(dir_.get(), &locked) != 0) return os_error(partial_.string());
  if (::lstat(partial_.c_str(), &there) == 0 && there.st_ino == locked.st_ino) return {};
  if (!options_.shared) return busy();
  return Error{XD_NOT_FOUND, cat(partial_.string(), ": it was removed meanwhile")};
}

Result<void> Staging::take_partial() {
  for (int left = kMaxTries;; --left) {
    made_ = !options_.joins && os_.mkdirat(AT_FDCWD, partial_.c_str(), 0777) == 0;
    if (!made_ && !options_.joins && errno != EEXIST) return os_error("make " + partial_.string());
    dir_ = Fd(
        os_.openat(AT_FDCWD, partial_.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0));
    const auto taken = dir_.valid() ? lock() : Result<void>(os_error(partial_.string()));
    if (taken) break;
    if (!options_.shared || taken.error().code != XD_NOT_FOUND || left == 0) return taken.error();
  }
  const bool is_new = made_;
  if (!is_new && !is_ours(partial_)) {
    if (!inode_of(partial_)) return Error{XD_NOT_FOUND, cat(partial_.string(), ": it is gone")};
    return not_ours(partial_);
  }
  open_ = true;
  kept_ = !is_new;  // whatever happens to this run, unless it says otherwise
  const std::string marker = (partial_ / kMarker).string();
  const Fd fd(os_.openat(AT_FDCWD, marker.c_str(),
                         O_RDONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0666));
  if (!fd.valid()) return os_error(marker);
  return look_at_leftovers(is_new);
}

Result<void> Staging::clear() {
  XD_TRY(bring_back(os_, partial_, destination_));
  boost::system::error_code ec;
  for (fs::directory_iterator it(partial_, ec); !ec && it != fs::directory_iterator();
       it.increment(ec)) {
    if (it->path().filename() != kMarker) fs::remove_all(it->path(), ec);
    if (ec) break;
  }
  if (ec) return Error{XD_IO, cat("clear ", partial_.string(), ": ", ec.message())};
  kept_ = false;
  return {};
}

Result<void> Staging::look_at_leftovers(bool is_new) {
  if (is_new) return {};
  boost::system::error_code ec;
  const bool tells = fs::exists(parts_ / "plan", ec);
  if (options_.restart || (!tells && !options_.shared)) return clear();
  if (!tells) return {};
  XD_TRY_SET(const std::string theirs, read_text(os_, parts_ / "plan"));
  const std::string difference = options_.difference(theirs);
  if (!difference.empty()) {
    return invalid(cat("expected to go on with what an earlier run left in ", partial_.string(),
                       ", found that ", difference,
                       ": give the same as then, or --restart to begin anew"));
  }
  // A publication that was cut short may have left the old OUT in the tree's place.
  XD_TRY_SET(const auto earlier, attempts());
  const auto inode = inode_of(tree_);
  const auto is_of_tree = [&](const Attempt& a) { return inode && a.tree_inode == *inode; };
  if (earlier.empty() || std::any_of(earlier.begin(), earlier.end(), is_of_tree)) return {};
  return options_.shared ? Result<void>() : clear();
}

// Ours, or the one that another attempt has made meanwhile.
Result<void> Staging::find_tree() {
  if (os_.mkdirat(AT_FDCWD, tree_.c_str(), 0777) != 0 && errno != EEXIST)
    return os_error("make " + tree_.string());
  boost::system::error_code ec;
  if (fs::symlink_status(tree_, ec).type() != fs::directory_file)
    return invalid(cat("expected ", tree_.string(), " to be a folder, found another: remove ",
                       partial_.string()));
  XD_TRY_SET(tree_inode_, inode_of(tree_));
  return {};
}

Result<void> Staging::begin_attempt() {
  for (const fs::path& folder : {parts_, own_}) {
    if (os_.mkdirat(AT_FDCWD, folder.c_str(), 0777) != 0 && errno != EEXIST)
      return os_error("make " + folder.string());
  }
  XD_TRY(agree_on_plan());
  XD_TRY(find_tree());
  XD_TRY_SET(journal_, Journal::create(os_, parts_ / (name_ + ".journal")));
  return journal_->append(first_record(Runner::self(), tree_inode_));
}

Result<void> Staging::agree_on_plan() {
  const fs::path ours = own_ / "plan", plan = parts_ / "plan";
  XD_TRY(write_text(os_, ours, options_.plan));
  if (os_.link(ours.c_str(), plan.c_str()) != 0) {
    const int error = errno;
    if (error == EEXIST) {
      XD_TRY_SET(const std::string theirs, read_text(os_, plan));
      const std::string difference = options_.difference(theirs);
      if (!difference.empty()) {
        kept_ = true;  // theirs
        return invalid(cat("expected all that write ", destination_.string(),
                           " to make the same, found that ", difference));
      }
    } else if (!options_.shared && (error == EPERM || error == EOPNOTSUPP || error == ENOSYS)) {
      // A file system without links serves one process.
      if (os_.renameat2(ours.c_str(), plan.c_str(), 0) != 0)
        return os_error(cat("rename ", ours.string(), " to ", plan.string()));
      return {};
    } else {
      return os_error(cat("link ", ours.string(), " to ", plan.string()));
    }
  }
  if (os_.unlinkat(AT_FDCWD, ours.c_str(), 0) != 0) return os_error(ours.string());
  return {};
}

Staging::~Staging() {
  syncing_ = {};
  boost::system::error_code ec;
  if (open_ && !kept_) {
    if (!options_.shared) {
      (void)remove_tree(partial_, kMarker);
    } else if (is_alone()) {
      (void)remove_renamed();
    } else {
      fs::remove_all(own_, ec);  // the journal tells what is in the tree
    }
  } else if (made_ && !open_) {
    (void)os_.unlinkat(AT_FDCWD, partial_.c_str(), AT_REMOVEDIR);
  }
  for (fs::path p = destination_.parent_path(); !made_parent_.empty() && is_inside(p, made_parent_);
       p = p.parent_path()) {
    fs::remove(p, ec);  // empty ones only
    if (ec) break;
  }
}

// Whether nobody has worked here but us, who have finished nothing. One that begins just now finds
// its folder gone, and begins again.
bool Staging::is_alone() const {
  boost::system::error_code ec;
  for (fs::directory_iterator it(parts_, ec); !ec && it != fs::directory_iterator();
       it.increment(ec)) {
    if (it->path().extension() == ".journal" && it->path().stem() != name_) return false;
  }
  return !ec && fs::is_empty(tree_, ec) && !ec;
}

// Under another name first: who comes late must not find half of it.
Result<void> Staging::remove_renamed() {
  const fs::path away = cat(destination_.string(), ".", name_, kRemoved);
  const bool moved = os_.renameat2(partial_.c_str(), away.c_str(), 0) == 0;
  return remove_tree(moved ? away : partial_, kMarker);
}

Result<std::vector<Attempt>> Staging::attempts() {
  std::vector<fs::path> journals;
  boost::system::error_code ec;
  for (fs::directory_iterator it(parts_, ec); !ec && it != fs::directory_iterator();
       it.increment(ec)) {
    if (it->path().extension() == ".journal" && it->path().stem() != name_)
      journals.push_back(it->path());
  }
  if (ec)
    return Error{ec == boost::system::errc::no_such_file_or_directory ? XD_NOT_FOUND : XD_IO,
                 cat(parts_.string(), ": ", ec.message())};
  std::sort(journals.begin(), journals.end());
  std::vector<Attempt> out;
  for (const fs::path& journal : journals) {
    XD_TRY_SET(Attempt one, read_attempt(os_, journal));
    if (tree_inode_ == 0 || one.tree_inode == tree_inode_) out.push_back(std::move(one));
  }
  return out;
}

Result<Fd> Staging::open_file(uint64_t number, const std::string& name, int flags) {
  if (!is_safe_name(name) || name == kReportName || name == kMarker)
    return invalid(cat("expected a plain relative name for an output file, found ", name));
  const fs::path path = file(number);
  Fd fd(os_.openat(AT_FDCWD, path.c_str(), O_RDWR | O_NOFOLLOW | O_CLOEXEC | flags, 0666));
  if (!fd.valid()) return os_error(cat("make ", path.string(), " for ", name));
  return fd;
}

Result<std::unique_ptr<StagedObject>> Staging::create(uint64_t number, const std::string& name,
                                                      uint64_t size, bool is_sized_at_seal) {
  XD_TRY_SET(Fd fd, open_file(number, name, O_CREAT | O_EXCL));
  if (!is_sized_at_seal && os_.ftruncate(fd.get(), size) != 0)
    return os_error(cat("make ", file(number).string(), " of ", size, " bytes for ", name));
  return std::make_unique<StagedObject>(os_, std::move(fd), name, size, is_sized_at_seal);
}

Result<std::unique_ptr<StagedObject>> Staging::take_over(const Attempt& from, uint64_t number,
                                                         const std::string& name, uint64_t size) {
  const std::string theirs = (parts_ / from.name / std::to_string(number)).string();
  if (!from.is_over) return std::unique_ptr<StagedObject>();
  if (os_.renameat2(theirs.c_str(), file(number).c_str(), 0) != 0) {
    if (errno == ENOENT) return std::unique_ptr<StagedObject>();
    return os_error(cat("rename ", theirs, " to ", file(number).string()));
  }
  XD_TRY_SET(Fd fd, open_file(number, name, 0));
  struct stat st {};
  if (os_.fstat(fd.get(), &st) != 0) return os_error(file(number).string());
  if (static_cast<uint64_t>(st.st_size) == size)
    return std::make_unique<StagedObject>(os_, std::move(fd), name, size);
  // It was made, and not yet of its size.
  if (os_.unlinkat(AT_FDCWD, file(number).c_str(), 0) != 0) return os_error(file(number).string());
  return std::unique_ptr<StagedObject>();
}

Result<void> Staging::make_parents(const std::string& name) {
  const std::lock_guard lock(mutex_);
  for (size_t slash = name.find('/'); slash != name.npos; slash = name.find('/', slash + 1)) {
    const std::string folder = name.substr(0, slash);
    if (!folders_.insert(folder).second) continue;
    const std::string path = (tree_ / folder).string();
    if (os_.mkdirat(AT_FDCWD, path.c_str(), 0777) != 0 && errno != EEXIST) {
      folders_.erase(folder);  // else another thread would take it to be there
      return os_error("make " + path);
    }
  }
  return {};
}

Result<void> Staging::place(uint64_t number, const std::string& name) {
  XD_TRY(make_parents(name));
  const std::string from = file(number).string(), to = (tree_ / name).string();
  if (os_.renameat2(from.c_str(), to.c_str(), 0) != 0)
    return os_error(cat("rename ", from, " to ", to));
  return {};
}

Result<std::map<std::string, uint64_t>> Staging::placed() {
  std::map<std::string, uint64_t> out;
  boost::system::error_code ec;
  fs::recursive_directory_iterator it(tree_, ec);
  for (; !ec && it != fs::recursive_directory_iterator(); it.increment(ec)) {
    const auto type = fs::symlink_status(it->path(), ec).type();
    const std::string name = it->path().lexically_relative(tree_).string();
    if (type == fs::regular_file) {
      out[name] = fs::file_size(it->path(), ec);
    } else if (type != fs::directory_file && !ec) {
      return invalid(cat("expected files and folders in ", tree_.string(), ", found ", name,
                         ", which is neither: remove it"));
    }
  }
  if (ec)
    return Error{ec == boost::system::errc::no_such_file_or_directory ? XD_NOT_FOUND : XD_IO,
                 cat(tree_.string(), ": ", ec.message())};
  return out;
}

Result<void> Staging::sync() {
  const std::lock_guard lock(sync_mutex_);
  if (sync_error_) return *sync_error_;
  const uint64_t told = journal_->end();
  // One sync of the file system for everything: an fsync per file would cost a journal commit each.
  if (os_.syncfs(dir_.get()) != 0) {
    sync_error_ = os_error("sync " + partial_.string());
  } else if (auto marked = journal_->mark(told); !marked) {
    sync_error_ = std::move(marked).error();
  }
  return sync_error_ ? Result<void>(*sync_error_) : Result<void>();
}

void Staging::start_syncing() {
  try {
    syncing_ = std::jthread([this](const std::stop_token& stop) { sync_now_and_then(stop); });
  } catch (const std::system_error&) {
    // Without it a machine that goes down loses more, and nothing else.
  }
}

void Staging::sync_now_and_then(const std::stop_token& stop) {
  std::mutex mutex;
  std::condition_variable_any ended;
  std::unique_lock lock(mutex);
  while (!ended.wait_for(lock, stop, kSyncInterval, [&stop] { return stop.stop_requested(); })) {
    if (!sync()) return;  // the next sync() tells
  }
}

bool Staging::is_published_by_others() const {
  const auto inode = inode_of(destination_);
  return !published_ && inode && tree_inode_ != 0 && *inode == tree_inode_;
}

Result<void> Staging::publish(const std::string& report) {
  syncing_ = {};
  const fs::path written = own_ / kReportName, placed = tree_ / kReportName;
  XD_TRY(write_text(os_, written, report));
  if (os_.renameat2(written.c_str(), placed.c_str(), 0) != 0)
    return os_error(cat("rename ", written.string(), " to ", placed.string()));
  if (options_.sync) XD_TRY(sync());
  const std::string parent = destination_.parent_path().string();
  const Fd parent_fd(os_.openat(AT_FDCWD, parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0));
  if (!parent_fd.valid()) return os_error(parent);
  XD_TRY(io::publish(os_, {tree_, destination_, tree_inode_, parts_, options_.overwrite}));
  published_ = true;
  made_parent_.clear();
  std::optional<Error> error;
  if (options_.sync && os_.fsync(parent_fd.get()) != 0)
    error = os_error(cat(destination_.string(), " is in place, but sync ", parent));
  made_ = open_ = false;
  if (auto r = remove_renamed(); !r && !error)
    error = std::move(r).error().in(
        cat(destination_.string(), " is in place, but what it was made in is not gone"));
  return error ? Result<void>(*std::move(error)) : Result<void>();
}

}  // namespace crossdock::io
