// SPDX-License-Identifier: Apache-2.0
#include "core/io/journal.h"

#include "core/io/leftovers.h"

#include <crossdock/bytes.hpp>

#include <fcntl.h>
#include <xxhash.h>

#include <optional>

namespace crossdock::io {

namespace {

constexpr std::string_view kMagic = "crossdock journal 1\n";
constexpr char kRecord = 'R', kMark = 'M', kWithdrawn = 'W';

uint64_t hash_of(char kind, std::string_view bytes) {
  std::string head(1, kind);
  put_le(head, static_cast<uint32_t>(bytes.size()));
  return XXH3_64bits_withSeed(bytes.data(), bytes.size(), XXH3_64bits(head.data(), head.size()));
}

struct Frame {
  char kind;
  std::string_view bytes;
};

// Nothing at the end, and where a frame is not whole.
std::optional<Frame> next_frame(Cursor& cursor) {
  const char kind = cursor.le<char>();
  const auto size = cursor.le<uint32_t>();
  const auto hash = cursor.le<uint64_t>();
  const std::string_view bytes = as_text(cursor.take(size));
  if (cursor.failed() || hash != hash_of(kind, bytes)) return std::nullopt;
  return Frame{kind, bytes};
}

}  // namespace

Result<std::unique_ptr<Journal>> Journal::create(Os& os, const fs::path& path) {
  Fd fd(os.openat(AT_FDCWD, path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                  0666));
  if (!fd.valid()) return os_error("make " + path.string());
  std::unique_ptr<Journal> journal(new Journal(os, path, std::move(fd)));
  if (auto r = write_exact(os, journal->fd_.get(), 0, as_bytes(kMagic)); !r)
    return std::move(r).error().in(path.string());
  journal->end_ = kMagic.size();
  return journal;
}

Result<void> Journal::write(char kind, std::string_view bytes) {
  std::string frame(1, kind);
  put_le(frame, static_cast<uint32_t>(bytes.size()));
  put_le(frame, hash_of(kind, bytes));
  frame += bytes;
  const std::lock_guard lock(mutex_);
  if (auto r = write_exact(os_, fd_.get(), end_, as_bytes(frame)); !r)
    return std::move(r).error().in(path_.string());
  end_ += frame.size();
  return {};
}

Result<void> Journal::append(std::string_view record) {
  if (record.size() > UINT32_MAX)
    return Error{XD_INTERNAL, cat("expected a record below 4 GiB, found ", record.size())};
  return write(kRecord, record);
}

Result<void> Journal::withdraw() { return write(kWithdrawn, {}); }

uint64_t Journal::end() const {
  const std::lock_guard lock(mutex_);
  return end_;
}

Result<void> Journal::mark(uint64_t offset) {
  std::string bytes;
  put_le(bytes, offset);
  XD_TRY(write(kMark, bytes));
  if (os_.fsync(fd_.get()) != 0) return os_error("sync " + path_.string());
  return {};
}

JournalRecords parse_journal(std::string_view text) {
  JournalRecords out;
  if (!text.starts_with(kMagic)) return out;
  Cursor cursor(as_bytes(text));
  cursor.take(kMagic.size());
  std::vector<uint64_t> ends;
  uint64_t durable = 0;
  while (const auto frame = next_frame(cursor)) {
    if (frame->kind == kWithdrawn) return {};
    if (frame->kind == kMark) durable = Cursor(as_bytes(frame->bytes)).le<uint64_t>();
    if (frame->kind != kRecord) continue;
    out.all.emplace_back(frame->bytes);
    ends.push_back(cursor.offset());
  }
  while (out.n_durable < ends.size() && ends[out.n_durable] <= durable) ++out.n_durable;
  return out;
}

Result<JournalRecords> read_journal(Os& os, const fs::path& path) {
  XD_TRY_SET(const std::string text, read_text(os, path));
  return parse_journal(text);
}

}  // namespace crossdock::io
