// SPDX-License-Identifier: Apache-2.0
#include "zip.h"

#include <algorithm>
#include <set>

namespace npz {

namespace {

constexpr uint32_t kLocal = 0x04034b50, kCentral = 0x02014b50, kEnd = 0x06054b50;
constexpr uint32_t kEnd64 = 0x06064b50, kLocator64 = 0x07064b50;
constexpr uint64_t kLocalBytes = 30, kEndBytes = 22, kEnd64Bytes = 56, kLocator64Bytes = 20;
constexpr uint64_t kMaxComment = 65535;
constexpr uint64_t kMaxDirectoryBytes = 256 << 20;  // a million members
constexpr uint16_t kEncrypted = 1, kStored = 0, kDeflated = 8, kZip64Extra = 1;
constexpr uint32_t kIn64 = 0xffffffff;  // "look into the zip64 field"
constexpr uint64_t kMaxRatio = 1032;    // deflate gives at most so many bytes for one

// Where the directory lies, by the records at the end of the file.
struct Directory {
  uint64_t offset, size, count;
  uint64_t end;  // where the records begin: the directory ends there
};

Result<Directory> read_end64(const Host& host, const Source& source, uint64_t at) {
  const uint64_t file_size = source.size(host);
  if (file_size < kEnd64Bytes || at > file_size - kEnd64Bytes)
    return corrupt(cat("expected the zip64 end record inside the file, found it at ", at));
  std::string bytes(kEnd64Bytes, '\0');
  XD_TRY(source.read(host, at, std::as_writable_bytes(std::span(bytes))));
  Cursor in(as_bytes(bytes));
  if (in.le<uint32_t>() != kEnd64)
    return corrupt(cat("expected the zip64 end record at ", at, ", found something else"));
  in.take(28);  // its size, versions, disks, and the entries of this disk
  const auto count = in.le<uint64_t>(), size = in.le<uint64_t>(), offset = in.le<uint64_t>();
  return Directory{offset, size, count, at};
}

Result<Directory> find_directory(const Host& host, const Source& source) {
  const uint64_t file_size = source.size(host);
  const uint64_t n = std::min(file_size, kLocator64Bytes + kEndBytes + kMaxComment);
  std::string tail(n, '\0');
  XD_TRY(source.read(host, file_size - n, std::as_writable_bytes(std::span(tail))));
  // The comment behind the record reaches to the end of the file.
  size_t at = std::string::npos;
  for (size_t i = n < kEndBytes ? 0 : n - kEndBytes + 1; i-- > 0 && at == std::string::npos;) {
    Cursor in(as_bytes(tail).subspan(i));
    if (in.le<uint32_t>() != kEnd) continue;
    in.take(16);
    if (in.le<uint16_t>() == n - i - kEndBytes) at = i;
  }
  if (at == std::string::npos)
    return corrupt(
        "expected a zip archive, which ends in its directory, found no such end: the file is cut "
        "off, or is no .npz");
  if (at >= kLocator64Bytes) {
    Cursor in(as_bytes(tail).subspan(at - kLocator64Bytes));
    const auto signature = in.le<uint32_t>();
    in.take(4);
    if (signature == kLocator64) return read_end64(host, source, in.le<uint64_t>());
  }
  Cursor in(as_bytes(tail).subspan(at + 10));
  const auto count = in.le<uint16_t>();
  const auto size = in.le<uint32_t>(), offset = in.le<uint32_t>();
  return Directory{offset, size, count, file_size - n + at};
}

// Fields that do not fit 32 bits are in the extra field, in this order.
Result<void> take_zip64(std::span<const std::byte> extra, Entry& entry) {
  for (Cursor in(extra); !in.done();) {
    const auto id = in.le<uint16_t>();
    Cursor field(in.take(in.le<uint16_t>()));
    if (id != kZip64Extra) continue;
    for (uint64_t* value : {&entry.size, &entry.packed, &entry.offset}) {
      if (*value == kIn64) *value = field.le<uint64_t>();
    }
    if (field.failed()) return corrupt("expected 64-bit sizes in its zip64 field, found fewer");
  }
  return {};
}

// One entry of the directory; `begin` is found later.
Result<Entry> read_entry(Cursor& in) {
  if (in.le<uint32_t>() != kCentral || in.failed())
    return corrupt("expected as many members in the directory as its end says, found fewer");
  Entry entry{};
  in.take(4);  // versions
  const auto flags = in.le<uint16_t>(), method = in.le<uint16_t>();
  in.take(4);  // time
  entry.crc = in.le<uint32_t>();
  entry.packed = in.le<uint32_t>();
  entry.size = in.le<uint32_t>();
  const auto n_name = in.le<uint16_t>(), n_extra = in.le<uint16_t>(), n_comment = in.le<uint16_t>();
  in.take(8);  // disk, attributes
  entry.offset = in.le<uint32_t>();
  entry.name = as_text(in.take(n_name));
  const auto extra = in.take(n_extra);
  in.take(n_comment);
  if (in.failed())
    return corrupt("expected the directory's last member inside of it, found it cut off");
  if (const size_t nul = entry.name.find('\0'); nul != std::string::npos)
    return corrupt(cat("expected names of members without NUL, found one after \"",
                       entry.name.substr(0, nul), '"'));
  if (auto done = take_zip64(extra, entry); !done) return std::move(done).error().in(entry.name);
  if (flags & kEncrypted)
    return unsupported("expected plain bytes, found encrypted ones").in(entry.name);
  if (method != kStored && method != kDeflated)
    return unsupported(cat("expected a member stored or deflated, found method ", method))
        .in(entry.name);
  entry.is_deflated = method == kDeflated;
  if (!entry.is_deflated && entry.packed != entry.size)
    return corrupt(cat("expected as many bytes stored as unpacked, found ", entry.packed, " and ",
                       entry.size))
        .in(entry.name);
  if (entry.is_deflated && entry.size / kMaxRatio > entry.packed)
    return corrupt(cat("expected at most ", kMaxRatio, " bytes for each deflated one, found ",
                       entry.size, " of ", entry.packed, ": this is no honest archive"))
        .in(entry.name);
  return entry;
}

// Finds where the member's bytes begin, by its own header, which must tell the same.
Result<void> place(Entry& entry, std::span<const std::byte> header, uint64_t end) {
  Cursor in(header);
  const auto signature = in.le<uint32_t>();
  in.take(4);
  const auto method = in.le<uint16_t>();
  in.take(16);
  const auto n_name = in.le<uint16_t>(), n_extra = in.le<uint16_t>();
  if (signature != kLocal || n_name != entry.name.size() ||
      method != (entry.is_deflated ? kDeflated : kStored) || as_text(in.take(n_name)) != entry.name)
    return corrupt(cat("expected its own header at ", entry.offset,
                       " to tell the same as the directory, found another"));
  entry.begin = entry.offset + header.size() + n_extra;
  if (entry.begin > end || entry.packed > end - entry.begin)
    return corrupt(cat("expected its bytes before the directory at ", end, ", found ", entry.packed,
                       " at ", entry.begin));
  return {};
}

Result<void> place_all(const Host& host, const Source& source, std::vector<Entry>& entries,
                       uint64_t end) {
  std::vector<std::string> headers;
  std::vector<SourceRead> reads;
  headers.reserve(entries.size());  // so that the texts stay where they are
  for (const Entry& entry : entries) {
    const uint64_t n = kLocalBytes + entry.name.size();
    if (n > end || entry.offset > end - n)
      return corrupt(cat("expected its header before the directory, found it at ", entry.offset))
          .in(entry.name);
    std::string& header = headers.emplace_back(n, '\0');
    reads.push_back({source, entry.offset, std::as_writable_bytes(std::span(header))});
  }
  XD_TRY(read_many(host, reads));
  for (size_t i = 0; i < entries.size(); ++i) {
    if (auto placed = place(entries[i], as_bytes(headers[i]), end); !placed)
      return std::move(placed).error().in(entries[i].name);
  }
  return {};
}

// Members that share bytes are how a small archive unpacks to a huge one.
Result<void> check_apart(const std::vector<Entry>& entries) {
  std::vector<const Entry*> sorted;
  std::set<std::string_view> names;
  for (const Entry& entry : entries) {
    sorted.push_back(&entry);
    if (!names.insert(entry.name).second)
      return corrupt("expected each member once, found it twice").in(entry.name);
  }
  std::ranges::sort(sorted, {}, [](const Entry* entry) { return entry->offset; });
  for (size_t i = 1; i < sorted.size(); ++i) {
    if (sorted[i - 1]->begin + sorted[i - 1]->packed > sorted[i]->offset)
      return corrupt(
                 cat("expected members that lie apart, found it to overlap ", sorted[i - 1]->name))
          .in(sorted[i]->name);
  }
  return {};
}

}  // namespace

Result<std::vector<Entry>> read_directory(const Host& host, const Source& source) {
  XD_TRY_SET(const Directory directory, find_directory(host, source));
  const auto end = checked_add(directory.offset, directory.size);
  if (end != directory.end)
    return corrupt(cat("expected the zip directory to end at ", directory.end, ", found ",
                       directory.size, " bytes at ", directory.offset,
                       ": something was cut off or put in front"));
  if (directory.size > kMaxDirectoryBytes)
    return unsupported(cat("expected a zip directory of at most ", kMaxDirectoryBytes,
                           " bytes, found ", directory.size));
  std::string bytes(directory.size, '\0');
  XD_TRY(source.read(host, directory.offset, std::as_writable_bytes(std::span(bytes))));
  std::vector<Entry> entries;
  Cursor in(as_bytes(bytes));
  for (uint64_t i = 0; i < directory.count; ++i) {
    XD_TRY_SET(Entry entry, read_entry(in));
    entries.push_back(std::move(entry));
  }
  if (in.left() != 0)
    return corrupt(cat("expected ", directory.count,
                       " members in the zip directory, found bytes behind them"));
  XD_TRY(place_all(host, source, entries, directory.offset));
  XD_TRY(check_apart(entries));
  return entries;
}

}  // namespace npz
