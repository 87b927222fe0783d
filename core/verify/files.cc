// SPDX-License-Identifier: Apache-2.0
#include "core/verify/files.h"

#include "core/base/text.h"
#include "core/convert/scheduler.h"
#include "core/io/git_blob.h"
#include "core/io/sha256.h"
#include "core/io/tree_digest.h"

#include <fcntl.h>

#include <algorithm>
#include <memory>
#include <vector>

namespace crossdock::verify {

namespace {

// Fits the processor's caches, so that what is read is still there when it is hashed.
constexpr uint64_t kPieceBytes = 256 << 10;
// Of a file that is cut: many tasks for several threads, and few calls of open() for one byte.
constexpr uint64_t kTaskBytes = 32 << 20;
static_assert(kTaskBytes % io::kLeafBytes == 0);

struct Open {
  io::Fd fd;
  uint64_t size = 0;
};

// O_NONBLOCK: a pipe in a file's place must not block.
Result<Open> open_file(io::Os& os, const fs::path& path) {
  Open out{io::Fd(os.openat(AT_FDCWD, path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0))};
  if (!out.fd.valid()) {
    if (errno == ENOENT)
      return Error{XD_NOT_FOUND, "expected this file, found none: No such file or directory"};
    return io::os_error("open");
  }
  struct stat st {};
  if (os.fstat(out.fd.get(), &st) != 0) return io::os_error("stat");
  if (!S_ISREG(st.st_mode)) return corrupt("expected a regular file");
  out.size = static_cast<uint64_t>(st.st_size);
  return out;
}

enum class Digest { kNone, kTree, kWhole };

Digest kind_of(const std::string& digest) {
  if (digest.empty()) return Digest::kNone;
  return digest.starts_with("tree:") ? Digest::kTree : Digest::kWhole;
}

// Any of the digests that need a file in order.
class WholeDigest {
 public:
  WholeDigest(const std::string& wanted, uint64_t size) {
    if (wanted.starts_with("git:")) {
      git_ = std::make_unique<io::GitBlob>(size);
    } else {
      sha256_ = std::make_unique<io::Sha256>();
    }
  }
  void update(std::span<const std::byte> bytes) {
    git_ ? git_->update(bytes) : sha256_->update(bytes);
  }
  std::string finish() { return git_ ? git_->finish() : sha256_->finish(); }

 private:
  std::unique_ptr<io::GitBlob> git_;
  std::unique_ptr<io::Sha256> sha256_;
};

class Check {
 public:
  Check(const Reading& reading, std::span<const ExpectedFile> files, Findings& findings)
      : reading_(reading), files_(files), findings_(findings) {
    for (size_t i = 0; i < files.size(); ++i) add_tasks(i);
  }

  Result<void> run() {
    convert::Schedule schedule;
    schedule.threads = reading_.threads;
    for (const Task& task : tasks_)
      schedule.memory.push_back(kind_of(files_[task.file].digest) == Digest::kNone ? 0
                                                                                   : kPieceBytes);
    schedule.run = [this](size_t i) { return run(tasks_[i]); };
    schedule.on_tick = [this] { tick(); };
    XD_TRY(convert::run_schedule(schedule, reading_.memory, reading_.cancelled));
    tick();
    return {};
  }

 private:
  struct Task {
    size_t file;
    uint64_t begin, end;  // of a file that is cut; else the whole of it, and its end not known
  };
  struct State {
    std::unique_ptr<io::TreeDigest> tree;
    std::atomic<size_t> tasks_left{1};
    std::atomic<bool> is_bad{false};
  };

  void add_tasks(size_t i) {
    const ExpectedFile& file = files_[i];
    State& state = *states_.emplace_back(std::make_unique<State>());
    if (kind_of(file.digest) != Digest::kNone) total_ += file.size.value_or(0);
    if (kind_of(file.digest) != Digest::kTree || !file.size) {
      tasks_.push_back({i, 0, 0});
      return;
    }
    const uint64_t n = std::max<uint64_t>(1, (*file.size + kTaskBytes - 1) / kTaskBytes);
    state.tree = std::make_unique<io::TreeDigest>(*file.size);
    state.tasks_left = n;
    for (uint64_t k = 0; k < n; ++k)
      tasks_.push_back({i, k * kTaskBytes, std::min(*file.size, (k + 1) * kTaskBytes)});
  }

  void tick() const {
    if (reading_.progress) reading_.progress(std::min<uint64_t>(done_, total_), total_);
  }

  // One problem for each file, however many of its pieces are bad.
  void blame(size_t file, const std::string& what) {
    if (!states_[file]->is_bad.exchange(true))
      findings_.problem(cat(base::printable(files_[file].name), ": ", what));
  }

  Result<void> run(const Task& task) {
    auto looked = look(task);
    if (looked) return {};
    if (looked.error().code == XD_CANCELLED || looked.error().code == XD_NO_MEMORY) return looked;
    blame(task.file, looked.error().message);
    return {};
  }

  Result<void> look(const Task& task) {
    const ExpectedFile& file = files_[task.file];
    XD_TRY_SET(const Open open, open_file(reading_.os, file.path));
    if (file.size && open.size != *file.size)
      return corrupt(cat("expected ", *file.size, " bytes, found ", open.size));
    switch (kind_of(file.digest)) {
      case Digest::kNone:
        return {};
      case Digest::kWhole:
        return look_at_whole(file, open);
      case Digest::kTree:
        break;
    }
    State& state = *states_[task.file];
    io::TreeDigest::Run run(*state.tree, task.begin);
    XD_TRY(read(open.fd, task.begin, task.end, [&](auto bytes) { run.add(bytes); }));
    run.hand_in();
    return --state.tasks_left == 0 ? compare(file.digest, state.tree->text()) : Result<void>();
  }

  Result<void> look_at_whole(const ExpectedFile& file, const Open& open) {
    WholeDigest digest(file.digest, open.size);
    XD_TRY(read(open.fd, 0, open.size, [&](auto bytes) { digest.update(bytes); }));
    return compare(file.digest, digest.finish());
  }

  static Result<void> compare(const std::string& wanted, const std::string& found) {
    if (wanted == found) return {};
    return corrupt(cat("expected ", wanted, ", found ", found, ": its bytes were changed"));
  }

  template <class Take>
  Result<void> read(const io::Fd& fd, uint64_t begin, uint64_t end, Take&& take) {
    const base::Block piece(reading_.memory, kPieceBytes);
    if (!piece.data)
      return Error{XD_NO_MEMORY, "expected room for a piece of a file: raise --memory"};
    for (uint64_t at = begin; at < end;) {
      if (reading_.cancelled) return Error{XD_CANCELLED, "cancelled"};
      const std::span<std::byte> bytes(piece.data, std::min(kPieceBytes, end - at));
      XD_TRY(io::read_exact(reading_.os, fd.get(), at, bytes));
      take(std::span<const std::byte>(bytes));
      at += bytes.size();
      done_ += bytes.size();
    }
    return {};
  }

  const Reading& reading_;
  const std::span<const ExpectedFile> files_;
  Findings& findings_;
  std::vector<Task> tasks_;
  std::vector<std::unique_ptr<State>> states_;
  uint64_t total_ = 0;
  std::atomic<uint64_t> done_{0};
};

}  // namespace

Result<void> check_files(const Reading& reading, std::span<const ExpectedFile> files,
                         Findings& findings) {
  auto looked = Check(reading, files, findings).run();
  findings.settle();
  return looked;
}

Result<std::string> read_file(io::Os& os, const fs::path& path, uint64_t most) {
  const auto read = [&]() -> Result<std::string> {
    XD_TRY_SET(const Open open, open_file(os, path));
    if (open.size > most)
      return corrupt(cat("expected at most ", most, " bytes, found ", open.size));
    std::string text(open.size, '\0');
    XD_TRY(io::read_exact(os, open.fd.get(), 0, std::as_writable_bytes(std::span(text))));
    return text;
  };
  auto text = read();
  return text ? std::move(text) : std::move(text).error().in(path.string());
}

}  // namespace crossdock::verify
