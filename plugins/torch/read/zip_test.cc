// SPDX-License-Identifier: Apache-2.0
#include "plugins/torch/read/zip.h"

#include "plugins/torch/read/recipes_for_test.h"
#include "plugins/torch/read/record.h"
#include <crossdock/testing/memory_host.h>
#include "tests/support/plugin_checks.h"

using namespace crossdock;
using test::has;
using namespace crossdock::torch_read;
using namespace crossdock::torch_read::recipe;

namespace {

struct Opened {
  test::MemoryHost host;
  Host api = host.api();
  std::optional<Source> source;
  std::vector<Record> records;
  std::string error;

  explicit Opened(const std::string& bytes) {
    host.inputs["f"] = bytes;
    source = *Input(host.input()).open(api, "f");
    auto read = read_zip_directory(api, *source);
    if (read) records = *std::move(read);
    if (!read) error = host.text(read.error());
  }
  // The whole record, or the error.
  std::string read(size_t i) {
    RecordReader reader(*source);
    std::string out(records[i].n_bytes, '\0');
    const auto done = reader.read(api, records[i], 0, std::as_writable_bytes(std::span(out)));
    return done ? out : done.error().message;
  }
};

std::string outcome(const std::vector<ZipRecord>& records) {
  const Opened o(zip(records));
  return o.error.empty() ? "accepted" : o.error;
}

}  // namespace

TEST_CASE("zip: records and their bytes") {
  const std::string zeros(100'000, '\0');
  Opened o(zip({{"a/x", "hello"}, {"a/y", zeros, true}, {"a/z", ""}, {"a/w", "", true}}));
  REQUIRE(o.error.empty());
  REQUIRE(o.records.size() == 4);
  CHECK(o.records[0].name == "a/x");
  CHECK(o.records[0].offset == 33);
  CHECK(o.read(0) == "hello");
  CHECK(o.records[1].deflated);
  CHECK(o.read(1) == zeros);
  CHECK(o.read(2).empty());
  CHECK(o.read(3).empty());
}

TEST_CASE("zip: a comment may look like an end record") {
  CHECK(Opened(zip({{"a", "x"}}, "hello PK\5\6 world")).error.empty());
  const std::string twice = zip({{"a", "x"}}, end_record(0, 0, 0));
  CHECK(has(Opened(twice).error, "found two that fit"));
}

TEST_CASE("zip: contradictions, each refused by name") {
  const std::vector<ZipRecord> good{{"a/x", "hello"}, {"a/y", "world"}};
  REQUIRE(outcome(good) == "accepted");
  const auto with = [&](auto change) {
    auto records = good;
    change(records[1]);
    return outcome(records);
  };
  using R = ZipRecord;
  CHECK(has(with([](R& r) { r.name = "a/x"; }), "expected each record once, found \"a/x\" twice"));
  CHECK(has(with([](R& r) { r.name = "A/X"; }), "differing in case only"));
  CHECK(has(with([](R& r) { r.local_name = "a/z"; }),
            "expected the same name in the directory and in the local header"));
  CHECK(has(with([](R& r) { r.local_name = "a/yy"; }), "expected the same name"));
  CHECK(has(with([](R& r) { r.flags = 1; }), "encrypted record"));
  CHECK(has(with([](R& r) { r.local_flags = 1; }), "encrypted record"));
  CHECK(has(with([](R& r) { r.flags = 1 << 6; }), "encrypted record"));
  CHECK(has(with([](R& r) { r.method = 12; }), "found compression method 12"));
  CHECK(has(with([](R& r) { r.size_error = 1; }),
            "expected a stored record's two sizes to be one, found 5 and 6"));
  CHECK(has(with([](R& r) { r.stored_error = -1; }), "two sizes to be one"));
  CHECK(has(with([](R& r) { r.local_size_error = 1; }), "in the local header too, found 6 and 6"));
  CHECK(has(with([](R& r) { r.size_error = r.stored_error = 1; }),
            "expected 6 bytes of data before the directory, found 5"));
  CHECK(has(with([](R& r) { r.offset_error = 1; }), "expected a local header, found other bytes"));
  CHECK(has(with([](R& r) { r.offset_error = 1 << 20; }),
            "expected a local header before the directory"));
  CHECK(has(with([](R& r) { r.offset_error = -38; }),
            "expected the same name"));  // the other record's
  CHECK(has(
      outcome({{"a/x", std::string(40, 'P'), false, {}, 0, 0, 0, 0, 20, 20, 0}, {"a/y", "world"}}),
      "inside \"a/x\""));
  CHECK(has(with([](R& r) { r.deflate = true, r.data = "x", r.size_error = 100'000; }),
            "a size that deflate can reach"));
}

TEST_CASE("zip: local headers of writers that could not seek") {
  std::vector<ZipRecord> records{{"a/x", "hello"}};
  records[0].local_flags = 1 << 3;
  records[0].local_size_error = -5;
  CHECK(outcome(records) == "accepted");
  records[0].local_flags = 0;
  CHECK(has(outcome(records), "found 0 and 0"));
}

TEST_CASE("zip: a directory that is not where the file says") {
  const std::string good = zip({{"a", "x"}, {"b", "y"}});
  CHECK(has(Opened("front" + good).error, "has bytes in front"));
  CHECK(has(Opened(good.substr(0, good.size() - 1)).error, "cut off"));
  CHECK(has(Opened(good + "x").error, "cut off"));
  CHECK(has(Opened("").error, "cut off"));
  CHECK(has(Opened(std::string(100'000, 'P')).error, "cut off"));
  const auto patched = [&](size_t from_end, char value) {
    std::string bytes = good;
    bytes[bytes.size() - from_end] = value;
    return Opened(bytes).error;
  };
  CHECK(has(patched(18, 1), "a part of a split one"));
  CHECK(has(patched(14, 3), "a part of a split one"));
  CHECK(has(patched(10, 1), "expected the zip directory to end where"));
  CHECK(has(patched(6, 1), "expected the zip directory to end where"));
  std::string counts = good;
  counts[counts.size() - 14] = counts[counts.size() - 12] = 3;
  CHECK(has(Opened(counts).error, "expected 3 records in the zip directory, found 2"));
}

TEST_CASE("zip: ends at every byte, and every bit flipped") {
  const std::string good = zip({{"a/x", "hello"}, {"a/y", std::string(50, 'y'), true}});
  for (size_t n = 0; n < good.size(); ++n) {
    INFO(n);
    CHECK_FALSE(Opened(good.substr(0, n)).error.empty());
  }
  for (size_t bit = 0; bit < good.size() * 8; ++bit) {
    std::string bytes = good;
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ 1 << bit % 8);
    Opened o(bytes);
    for (size_t i = 0; i < o.records.size(); ++i)
      (void)o.read(i);  // whatever it says, within bounds
  }
}

TEST_CASE("zip: deflated records that lie") {
  std::vector<ZipRecord> records{{"a", std::string(5000, 'a'), true}};
  const auto read = [&] { return Opened(zip(records)).read(0); };
  CHECK(read() == records[0].data);
  records[0].size_error = -1;
  CHECK(has(read(), "expected deflated data of 4999 bytes, found more data"));
  records[0].size_error = 1;
  CHECK(has(read(), "expected deflated data of 5001 bytes, found its end at byte 5000"));
  records[0] = {"a", std::string(5000, 'a'), false};
  records[0].method = 8;
  CHECK(has(read(), "found other data"));
  records[0] = {"a", "abc", true};
  records[0].stored_error = -1;
  CHECK(has(read(), "found "));
}

TEST_CASE("zip: ranges of a deflated record, forward, back and from many threads") {
  std::string data;
  for (uint64_t i = 0; i < 300'000; ++i) data += static_cast<char>(i * i >> 7);
  Opened o(zip({{"a", data, true}}));
  RecordReader reader(*o.source);
  const auto range = [&](uint64_t offset, uint64_t n) {
    std::string out(n, '\0');
    const auto done =
        reader.read(o.api, o.records[0], offset, std::as_writable_bytes(std::span(out)));
    return done ? out : done.error().message;
  };
  const uint64_t before = o.host.bytes_read;
  for (uint64_t at = 0; at < data.size(); at += 1000)
    CHECK(range(at, 1000) == data.substr(at, 1000));
  CHECK(o.host.bytes_read - before ==
        o.records[0].n_stored);  // once through, not from the start each time
  CHECK(range(299'999, 1) == data.substr(299'999));
  CHECK(range(5, 100) == data.substr(5, 100));
  CHECK(range(300'000, 0).empty());
  CHECK(has(range(299'999, 2), "expected a range inside 300000 bytes"));
}

TEST_CASE("zip: CRCs") {
  Opened o(zip({{"a", "hello", false}, {"b", std::string(100'000, 'b'), true}}));
  RecordReader reader(*o.source);
  for (const Record& r : o.records) CHECK(*crc_of(o.api, reader, r) == r.crc);
}
