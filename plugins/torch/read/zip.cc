// SPDX-License-Identifier: Apache-2.0

// The fields are those of APPNOTE.TXT 6.3, sections 4.3 to 4.5.
#include "plugins/torch/read/zip.h"

#include "plugins/common/quote.h"

#include <algorithm>
#include <optional>

namespace crossdock::torch_read {

namespace {

using common::in_quotes;

constexpr uint32_t kLocalHeader = 0x04034b50, kCentralHeader = 0x02014b50, kEnd = 0x06054b50;
constexpr uint32_t kZip64End = 0x06064b50, kZip64Locator = 0x07064b50;
constexpr uint64_t kLocalBytes = 30, kEndBytes = 22, kLocatorBytes = 20, kZip64EndBytes = 56;
constexpr uint16_t kEncrypted = 1 | 1 << 6 | 1 << 13, kDescriptor = 1 << 3, kPatched = 1 << 5;
constexpr uint16_t kStored = 0, kDeflated = 8, kZip64Extra = 1;
constexpr uint32_t kIn64 = 0xffffffff;  // the value is in the zip64 extra field

struct Directory {
  uint64_t offset = 0, n_bytes = 0, n_records = 0;
};

struct Entry {
  Record record;
  uint64_t header = 0;  // of the local header
  uint16_t flags = 0, method = 0;
};

Error cut_off(std::string_view what) {
  return corrupt(
      cat("expected ", what, ", found none: the file is cut off, download or save it again"));
}

Result<std::string> read(const Host& host, const Source& source, uint64_t offset, uint64_t n) {
  std::string out(n, '\0');
  XD_TRY(source.read(host, offset, std::as_writable_bytes(std::span(out))));
  return out;
}

// The end record is the last thing in the file but for a comment of any content, which may look
// like one itself.
Result<uint64_t> find_end(std::string_view tail) {
  std::optional<uint64_t> found;
  for (size_t at = 0; at + kEndBytes <= tail.size(); ++at) {
    Cursor in(as_bytes(tail.substr(at, kEndBytes)));
    if (in.le<uint32_t>() != kEnd) continue;
    in.take(16);
    if (in.le<uint16_t>() != tail.size() - at - kEndBytes) continue;
    if (found) return corrupt("expected one end of the zip directory, found two that fit");
    found = at;
  }
  if (!found) return cut_off("the directory at the end of a zip file");
  return *found;
}

// The zip64 end record's numbers, when there is one, go before the end record's, which must not
// contradict them.
Result<Directory> read_end(const Host& host, const Source& source, uint64_t max_comment_bytes) {
  const uint64_t size = source.size(host);
  const uint64_t n_tail = std::min(size, kEndBytes + max_comment_bytes);
  XD_TRY_SET(const std::string tail, read(host, source, size - n_tail, n_tail));
  XD_TRY_SET(const uint64_t in_tail, find_end(tail));
  const uint64_t end = size - n_tail + in_tail;

  Cursor in(as_bytes(std::string_view(tail).substr(in_tail)));
  in.take(4);
  const uint16_t disk = in.le<uint16_t>(), first_disk = in.le<uint16_t>();
  const uint16_t here = in.le<uint16_t>(), total = in.le<uint16_t>();
  const uint32_t n_bytes = in.le<uint32_t>(), offset = in.le<uint32_t>();
  Directory out{offset, n_bytes, total};
  uint64_t directory_end = end;
  if (end >= kLocatorBytes) {
    XD_TRY_SET(const std::string bytes, read(host, source, end - kLocatorBytes, kLocatorBytes));
    Cursor locator(as_bytes(bytes));
    if (locator.le<uint32_t>() == kZip64Locator) {
      locator.take(4);
      directory_end = locator.le<uint64_t>();
      if (end < kLocatorBytes + kZip64EndBytes ||
          directory_end > end - kLocatorBytes - kZip64EndBytes)
        return corrupt("expected the zip64 end record before its locator, found it elsewhere");
      XD_TRY_SET(const std::string record, read(host, source, directory_end, kZip64EndBytes));
      Cursor z(as_bytes(record));
      const uint32_t signature = z.le<uint32_t>();
      const uint64_t rest = z.le<uint64_t>();
      z.take(20);  // versions, disks, records on this disk
      const Directory in64{0, 0, z.le<uint64_t>()};
      out = {0, z.le<uint64_t>(), in64.n_records};
      out.offset = z.le<uint64_t>();
      if (signature != kZip64End || rest > end || directory_end + 12 + rest != end - kLocatorBytes)
        return corrupt("expected a zip64 end record that ends at its locator, found another");
      const bool agree = (total == 0xffff || total == out.n_records) &&
                         (n_bytes == kIn64 || n_bytes == out.n_bytes) &&
                         (offset == kIn64 || offset == out.offset);
      if (!agree)
        return corrupt("expected one directory, found that the zip and zip64 end records disagree");
    }
  }
  const bool on_disks =
      (disk != 0 && disk != 0xffff) || (first_disk != 0 && first_disk != 0xffff) || here != total;
  if (on_disks) return unsupported("expected a whole zip file, found a part of a split one");
  const auto sum = checked_add(out.offset, out.n_bytes);
  if (!sum || *sum != directory_end)
    return corrupt(cat("expected the zip directory to end where its end record begins, at ",
                       directory_end, ", found ", out.n_bytes, " bytes at ", out.offset,
                       ": the file is cut off or has bytes in front"));
  if (out.n_bytes > kMaxDirectoryBytes)
    return unsupported(cat("expected a zip directory of at most ", kMaxDirectoryBytes,
                           " bytes, found ", out.n_bytes));
  return out;
}

// Sizes (and the local header's offset, which a local header itself has not) of 64 bits, where the
// short fields say so.
Result<void> read_zip64(std::span<const std::byte> extra, uint64_t& n_bytes, uint64_t& n_stored,
                        uint64_t* header) {
  const bool wanted = n_bytes == kIn64 || n_stored == kIn64 || (header && *header == kIn64);
  Cursor in(extra);
  bool found = false;
  while (in.left() >= 4) {
    const uint16_t id = in.le<uint16_t>();
    Cursor field(in.take(in.le<uint16_t>()));
    if (in.failed())
      return corrupt("expected extra fields inside their record, found one that is cut off");
    if (id != kZip64Extra) continue;
    if (std::exchange(found, true)) return corrupt("expected one zip64 field, found two");
    if (n_bytes == kIn64) n_bytes = field.le<uint64_t>();
    if (n_stored == kIn64) n_stored = field.le<uint64_t>();
    if (header && *header == kIn64) *header = field.le<uint64_t>();
    if (field.failed()) return corrupt("expected sizes in the zip64 field, found it too short");
  }
  if (wanted && !found) return corrupt("expected a zip64 field with the sizes, found none");
  return {};
}

Result<Entry> parse_entry(Cursor& in) {
  Entry out;
  if (in.le<uint32_t>() != kCentralHeader)
    return corrupt("expected a record of the zip directory, found other bytes");
  in.take(4);  // versions
  out.flags = in.le<uint16_t>();
  out.method = in.le<uint16_t>();
  in.take(4);  // time
  out.record.crc = in.le<uint32_t>();
  out.record.n_stored = in.le<uint32_t>();
  out.record.n_bytes = in.le<uint32_t>();
  const uint16_t n_name = in.le<uint16_t>(), n_extra = in.le<uint16_t>(),
                 n_comment = in.le<uint16_t>();
  in.take(8);  // disk, attributes
  out.header = in.le<uint32_t>();
  out.record.name = as_text(in.take(n_name));
  const auto extra = in.take(n_extra);
  in.take(n_comment);
  if (in.failed()) return corrupt("expected a record of the zip directory, found its end");
  XD_TRY(read_zip64(extra, out.record.n_bytes, out.record.n_stored, &out.header));
  return out;
}

Result<void> check_entry(Entry& e) {
  if (e.flags & kEncrypted)
    return unsupported("expected plain bytes, found an encrypted record: save it without");
  if (e.flags & kPatched) return unsupported("expected plain bytes, found patch data");
  if (e.method != kStored && e.method != kDeflated)
    return unsupported(
        cat("expected a stored or deflated record, found compression method ", e.method));
  e.record.deflated = e.method == kDeflated;
  if (!e.record.deflated && e.record.n_stored != e.record.n_bytes)
    return corrupt(cat("expected a stored record's two sizes to be one, found ", e.record.n_stored,
                       " and ", e.record.n_bytes));
  if (e.record.deflated && e.record.n_bytes / kMaxInflation > e.record.n_stored)
    return corrupt(cat("expected a size that deflate can reach, found ", e.record.n_bytes,
                       " bytes from ", e.record.n_stored));
  return {};
}

// The local header must say the same as the directory. A writer that could not seek leaves its
// sizes 0 and says so by a flag, or gives them as unknown in zip64 form.
Result<void> read_local_header(const Host& host, const Source& source, Entry& e, uint64_t limit) {
  const uint64_t n_name = e.record.name.size();
  if (e.header > limit || limit - e.header < kLocalBytes + n_name)
    return corrupt(
        cat("expected a local header before the directory, found its offset ", e.header));
  XD_TRY_SET(const std::string bytes, read(host, source, e.header, kLocalBytes + n_name));
  Cursor in(as_bytes(bytes));
  if (in.le<uint32_t>() != kLocalHeader)
    return corrupt("expected a local header, found other bytes");
  in.take(2);
  const uint16_t flags = in.le<uint16_t>(), method = in.le<uint16_t>();
  in.take(8);  // time, CRC
  uint64_t n_stored = in.le<uint32_t>(), n_bytes = in.le<uint32_t>();
  const uint16_t local_name = in.le<uint16_t>(), n_extra = in.le<uint16_t>();
  if (local_name != n_name || as_text(in.take(n_name)) != e.record.name)
    return corrupt(
        "expected the same name in the directory and in the local header, found another");
  if ((flags & (kEncrypted | kPatched)) != 0)
    return unsupported("expected plain bytes, found an encrypted record");
  if (method != e.method)
    return corrupt(
        cat("expected compression method ", e.method, " in the local header too, found ", method));
  const uint64_t data = e.header + kLocalBytes + n_name + n_extra;
  if (data > limit)
    return corrupt("expected the record's data before the directory, found it beyond");
  if (n_extra > 0) {
    XD_TRY_SET(const std::string extra, read(host, source, data - n_extra, n_extra));
    // A pad may be of any content, so only what the sizes need is looked for.
    if (n_bytes == kIn64 || n_stored == kIn64)
      XD_TRY(read_zip64(as_bytes(extra), n_bytes, n_stored, nullptr));
  }
  const bool later = (flags & kDescriptor) && n_stored == 0 && n_bytes == 0;
  if (!later && (n_stored != e.record.n_stored || n_bytes != e.record.n_bytes))
    return corrupt(cat("expected the sizes of the directory, ", e.record.n_stored, " and ",
                       e.record.n_bytes, ", in the local header too, found ", n_stored, " and ",
                       n_bytes));
  e.record.offset = data;
  if (e.record.n_stored > limit - data)
    return corrupt(cat("expected ", e.record.n_stored,
                       " bytes of data before the directory, found ", limit - data));
  return {};
}

std::string folded(std::string name) {
  std::transform(name.begin(), name.end(), name.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? char(c + 32) : c; });
  return name;
}

// torch's own reader finds records without regard to case, so twins would be read differently by
// it.
Result<void> check_unique(const std::vector<Entry>& entries) {
  std::vector<std::string> names;
  for (const Entry& e : entries) names.push_back(folded(e.record.name));
  std::sort(names.begin(),
            names.end());  // not hashed: the worst case would be the file's to choose
  const auto twice = std::adjacent_find(names.begin(), names.end());
  if (twice == names.end()) return {};
  return corrupt(cat("expected each record once, found ", in_quotes(*twice),
                     " twice (or differing in case only)"));
}

Result<void> check_apart(const std::vector<Entry>& entries) {
  std::vector<const Entry*> sorted;
  for (const Entry& e : entries) sorted.push_back(&e);
  std::sort(sorted.begin(), sorted.end(),
            [](const Entry* a, const Entry* b) { return a->header < b->header; });
  for (size_t i = 1; i < sorted.size(); ++i) {
    const Record& before = sorted[i - 1]->record;
    if (sorted[i]->header < before.offset + before.n_stored)
      return corrupt(cat("expected records side by side, found ", in_quotes(sorted[i]->record.name),
                         " inside ", in_quotes(before.name)));
  }
  return {};
}

}  // namespace

Result<std::vector<Record>> read_zip_directory(const Host& host, const Source& source,
                                               uint64_t max_comment_bytes) {
  XD_TRY_SET(const Directory directory, read_end(host, source, max_comment_bytes));
  XD_TRY_SET(const Buffer bytes, Buffer::make(host, std::max<uint64_t>(directory.n_bytes, 1)));
  XD_TRY(source.read(host, directory.offset, bytes.span().first(directory.n_bytes)));
  Cursor in(bytes.span().first(directory.n_bytes));
  std::vector<Entry> entries;
  while (!in.done()) {
    auto entry = parse_entry(in);
    if (!entry) return std::move(entry).error().in(cat("record ", entries.size()));
    auto checked = check_entry(*entry);
    if (checked) checked = read_local_header(host, source, *entry, directory.offset);
    if (!checked)
      return checked.error().held_by_host
                 ? std::move(checked).error()
                 : std::move(checked).error().in(cat("record ", in_quotes(entry->record.name)));
    entries.push_back(*std::move(entry));
  }
  if (entries.size() != directory.n_records)
    return corrupt(cat("expected ", directory.n_records, " records in the zip directory, found ",
                       entries.size()));
  XD_TRY(check_unique(entries));
  XD_TRY(check_apart(entries));
  std::vector<Record> out;
  for (Entry& e : entries) out.push_back(std::move(e.record));
  return out;
}

}  // namespace crossdock::torch_read
