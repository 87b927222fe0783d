// SPDX-License-Identifier: Apache-2.0

// Offsets and bytes here are those of files that torch 2.13 itself wrote (the large ones under
// torch.serialization.skip_data).
#include "plugins/torch/write/file_layout.h"

#include <crossdock/bytes.hpp>
#include <string>
#include <vector>

#include "plugins/common/crc32.h"
#include "plugins/torch/write/unzip_for_test.h"
#include "tests/catch.h"

using namespace crossdock;
using namespace crossdock::torch_write;
using common::crc32;

namespace {

constexpr uint64_t k4G = uint64_t{1} << 32;

// torch.save's records with a pickle of this size.
std::vector<ZipLayout::Record> torch_records(uint64_t pickle,
                                             const std::vector<uint64_t>& storages) {
  std::vector<ZipLayout::Record> out = {
      {"data.pkl", pickle}, {".format_version", 1}, {".storage_alignment", 2}, {"byteorder", 6}};
  for (size_t i = 0; i < storages.size(); ++i)
    out.push_back({"data/" + std::to_string(i), storages[i]});
  out.push_back({"version", 2});
  out.push_back({".data/serialization_id", 40});
  return out;
}

// The whole file, with these storages.
std::string assemble(const FileLayout& file, const std::vector<std::string>& storages) {
  std::string out = file.head();
  std::vector<uint32_t> crcs;
  for (size_t i = 0; i < storages.size(); ++i) {
    if (i > 0) out += file.gap(i, crcs.back());
    CHECK(out.size() == file.storage_offset(i));
    out += storages[i];
    crcs.push_back(crc32(as_bytes(storages[i])));
  }
  CHECK(out.size() == file.tail_offset());
  out += file.tail(crcs);
  CHECK(out.size() == file.size());
  return out;
}

}  // namespace

TEST_CASE("a small file is laid out as torch does") {
  const ZipLayout zip("a", torch_records(187, {24}));
  CHECK(zip.size() == 1407);
  const std::vector<uint64_t> data = {64, 320, 448, 512, 576, 704, 832};
  for (size_t i = 0; i < data.size(); ++i) CHECK(zip.data_offset(i) == data[i]);
  const std::string head = zip.gap(0);
  CHECK(head.size() == 64);
  CHECK(head == std::string("PK\3\4\0\0\x08\x08", 8) + std::string(18, '\0') +
                    std::string("\x0a\0\x18\0", 4) + "a/data.pklFB" + std::string("\x14\0", 2) +
                    std::string(20, 'Z'));
  CHECK(zip.gap(1, 0x8f8368c4).substr(0, 16) ==
        std::string("PK\7\10\xc4\x68\x83\x8f\xbb\0\0\0\xbb\0\0\0", 16));
}

TEST_CASE("a record above 4 GiB, and those behind it, are zip64 as torch does it") {
  const ZipLayout zip("big", torch_records(306, {k4G + 100, 12, 20}));
  CHECK(zip.size() == 4294969481);
  CHECK(zip.data_offset(3) == 704);
  CHECK(zip.gap_offset(4) == 710);
  CHECK(zip.data_offset(4) == 832);
  CHECK(zip.gap_offset(5) == 4294968228);
  CHECK(zip.data_offset(5) == 4294968320);
  CHECK(zip.data_offset(8) == 4294968704);

  // The local header of the large record: its size, and 0 for the stored size, as torch leaves it.
  const std::string before = zip.gap(4);
  CHECK(before.substr(16 + 30, 10) == "big/data/0");
  CHECK(before.substr(16 + 40, 20) ==
        std::string("\1\0\x10\0\x64\0\0\0\1\0\0\0\0\0\0\0\0\0\0\0", 20));
  // Its descriptor has 8-byte sizes; the next record is small, but its header lies beyond 4 GiB.
  const std::string behind = zip.gap(5, 0);
  CHECK(behind.substr(0, 24) ==
        std::string("PK\7\10\0\0\0\0\x64\0\0\0\1\0\0\0\x64\0\0\0\1\0\0\0", 24));
  CHECK(behind.substr(24 + 40, 12) == std::string("\1\0\x08\0\xbc\3\0\0\1\0\0\0", 12));
  const std::string tail = zip.tail(std::vector<uint32_t>(9, 0));
  CHECK(tail.size() == zip.size() - zip.gap_offset(9));
  CHECK(tail.substr(tail.size() - 6, 4) == "\xff\xff\xff\xff");
}

TEST_CASE("zip64 begins at 2^32 - 1 bytes") {
  CHECK(ZipLayout("edge-2", torch_records(159, {k4G - 2})).size() == 4294968898);
  CHECK(ZipLayout("edge-1", torch_records(159, {k4G - 1})).size() == 4294968918);
  CHECK(ZipLayout("edge0", torch_records(159, {k4G})).size() == 4294968911);
}

TEST_CASE("more than 65535 records") {
  const ZipLayout zip("many", torch_records(5168384, std::vector<uint64_t>(70000, 4)));
  CHECK(zip.count() == 70006);
  CHECK(zip.size() == 18388517);
  const std::string tail = zip.tail(std::vector<uint32_t>(zip.count(), 0));
  CHECK(tail.size() == zip.size() - zip.gap_offset(zip.count()));
  CHECK(tail.substr(tail.size() - 98, 50) ==
        std::string("PK\6\6\x2c\0\0\0\0\0\0\0\x1e\3\x2d\0\0\0\0\0\0\0\0\0"
                    "\x76\x11\1\0\0\0\0\0\x76\x11\1\0\0\0\0\0\xcb\xfd\x40\0\0\0\0\0\xf8\x97",
                    50));
  CHECK(tail.substr(tail.size() - 14, 4) == "\xff\xff\xff\xff");
}

TEST_CASE("FileLayout: what is written in order reads back") {
  const std::vector<std::string> storages = {std::string(24, 'x'), "", std::string(100, '\0'), "y"};
  std::vector<uint64_t> sizes;
  for (const auto& s : storages) sizes.push_back(s.size());
  const FileLayout file("pickle", sizes);
  const std::string bytes = assemble(file, storages);
  CHECK(read_zip(bytes).size() == 10);
  CHECK(record_of(bytes, "data.pkl") == "pickle");
  CHECK(record_of(bytes, "byteorder") == "little");
  CHECK(record_of(bytes, "version") == "3\n");
  for (size_t i = 0; i < storages.size(); ++i)
    CHECK(record_of(bytes, "data/" + std::to_string(i)) == storages[i]);
  CHECK(assemble(file, storages) == bytes);
}

TEST_CASE("FileLayout without storages, and its fingerprint") {
  const auto records = read_zip(assemble(FileLayout("\x80\2N.", {}), {}));  // torch.save(None)
  REQUIRE(records.size() == 6);
  CHECK(records[5].name == "archive/.data/serialization_id");
  CHECK(records[5].data ==
        "00000000000000000005"
        "00082719495361317287");  // the second half is torch's
}

TEST_CASE("FileLayout: empty records do not count in the fingerprint") {
  const auto id = read_zip(assemble(FileLayout("\x80\2N.", std::vector<uint64_t>{0}), {""})).back();
  CHECK(id.data ==
        "00000000000000000006"
        "00082719495361317287");
}
