// SPDX-License-Identifier: Apache-2.0

// The C++ reader of examples/npz_reader against the host in memory: ranges in any order, threads,
// and faults. numpy makes the files in tests/interop/test_example_plugins.py; these are by hand.
#include <crossdock/testing/memory_host.h>
#include <zlib.h>
#include "tests/catch.h"

#include <random>
#include <thread>

using namespace crossdock;
using test::MemoryHost;

namespace {

constexpr uint64_t kElems = 200'000;  // several of the reader's pieces

std::string values(uint32_t seed) {
  std::mt19937 random(seed);
  std::string out;
  for (uint64_t i = 0; i < kElems; ++i) put_le<uint16_t>(out, random() % 100);
  return out;
}

std::string npy(const std::string& data) {
  const std::string header =
      cat("{'descr': '<u2', 'fortran_order': False, 'shape': (", data.size() / 2, ",), }\n");
  std::string out("\x93NUMPY\x01\x00", 8);
  put_le<uint16_t>(out, static_cast<uint16_t>(header.size()));
  return out + header + data;
}

std::string deflated(std::string data) {
  z_stream z{};
  REQUIRE(deflateInit2(&z, 6, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY) == Z_OK);
  std::string out(deflateBound(&z, data.size()), '\0');
  z.next_in = reinterpret_cast<Bytef*>(data.data());
  z.avail_in = static_cast<uInt>(data.size());
  z.next_out = reinterpret_cast<Bytef*>(out.data());
  z.avail_out = static_cast<uInt>(out.size());
  REQUIRE(deflate(&z, Z_FINISH) == Z_STREAM_END);
  out.resize(z.total_out);
  deflateEnd(&z);
  return out;
}

struct Archive {
  std::string body, directory;
  uint16_t count = 0;

  void add(const std::string& name, const std::string& data, bool is_deflated) {
    const std::string packed = is_deflated ? deflated(data) : data;
    std::string common;
    for (const uint16_t n : {20, 0, is_deflated ? 8 : 0, 0, 33}) put_le(common, n);
    put_le(common, static_cast<uint32_t>(
                       crc32_z(0, reinterpret_cast<const Bytef*>(data.data()), data.size())));
    put_le(common, static_cast<uint32_t>(packed.size()));
    put_le(common, static_cast<uint32_t>(data.size()));
    put_le(common, static_cast<uint32_t>(name.size()));  // and no extra field
    directory += cat("PK\1\2", std::string("\x14\0", 2), common, std::string(10, '\0'));
    put_le(directory, static_cast<uint32_t>(body.size()));
    directory += name;
    body += cat("PK\3\4", common, name, packed);
    ++count;
  }
  std::string bytes() const {
    std::string end("PK\5\6\0\0\0\0", 8);
    put_le(end, count);
    put_le(end, count);
    put_le(end, static_cast<uint32_t>(directory.size()));
    put_le(end, static_cast<uint32_t>(body.size()));
    return body + directory + end + std::string(2, '\0');
  }
};

void set_file(MemoryHost& host) {
  Archive archive;
  archive.add("packed.npy", npy(values(1)), true);
  archive.add("stored.npy", npy(values(2)), false);
  host.inputs["w.npz"] = archive.bytes();
}

}  // namespace

TEST_CASE("npz reader: what it says of its file") {
  MemoryHost host;
  set_file(host);
  CHECK(test::probe(host, test::linked_plugin(host)) == 50);
  host.named = "w.npz";
  CHECK(test::probe(host, test::linked_plugin(host)) == 95);
  const auto reader = test::run_reader(host, test::linked_plugin(host));
  REQUIRE(reader);
  const manifest::Manifest& m = (*reader)->manifest;
  REQUIRE(m.tensors.size() == 2);
  CHECK(m.source.files == std::vector<manifest::File>{{"w.npz", host.inputs["w.npz"].size(), ""}});
  CHECK(m.tensors[0].encoding == "deflate");
  CHECK(m.tensors[1].encoding.empty());
  CHECK((*reader)->hint(0)->is_sequential);
  CHECK_FALSE((*reader)->hint(1)->is_sequential);
  CHECK(*(*reader)->read(0) == values(1));
  CHECK(*(*reader)->read(1) == values(2));
  // No read() holds more than the hint says.
  CHECK(host.peak_allocated <= (*reader)->hint(0)->scratch);
}

TEST_CASE("npz reader: a sequential pass unpacks once, and a range before it anew") {
  MemoryHost host;
  set_file(host);
  const auto reader = test::run_reader(host, test::linked_plugin(host));
  REQUIRE(reader);
  const uint64_t packed = (*reader)->manifest.tensors[0].extents[0].length;
  host.bytes_read = 0;
  for (uint64_t at = 0; at < kElems; at += 50'000)
    REQUIRE((*reader)->read(dense_range(0, at, 50'000), 100'000));
  CHECK(host.bytes_read < packed + 4 * (64 << 10));  // what zlib left over is read again
  CHECK(*(*reader)->read(dense_range(0, 150'000, 3), 6) == values(1).substr(300'000, 6));
  CHECK(*(*reader)->read(dense_range(0, 5, 3), 6) == values(1).substr(10, 6));
  CHECK(*(*reader)->read(dense_range(0, 9, 3), 6) == values(1).substr(18, 6));
  CHECK((*reader)->read(dense_range(0, kElems - 1, 2), 4).error().code == XD_OUT_OF_RANGE);
  CHECK((*reader)->read(dense_range(2, 0, 1), 2).error().code == XD_OUT_OF_RANGE);
}

TEST_CASE("npz reader: several threads, ranges in any order") {
  MemoryHost host;
  set_file(host);
  const auto reader = test::run_reader(host, test::linked_plugin(host));
  REQUIRE(reader);
  const std::string wanted[] = {values(1), values(2)};
  std::vector<int> wrong(4);
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < wrong.size(); ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(t);
      for (int i = 0; i < 40; ++i) {
        const uint64_t begin = random() % kElems, count = random() % (kElems - begin + 1);
        const auto got = (*reader)->read(dense_range(i % 2, begin, count), count * 2);
        wrong[t] += !got || *got != wanted[i % 2].substr(begin * 2, count * 2);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == std::vector<int>(4));
}

TEST_CASE("npz reader: a damaged stored array is seen in whatever ranges it is read") {
  MemoryHost host;
  set_file(host);
  auto& bytes = host.inputs["w.npz"];
  const std::string data = values(2);
  bytes[bytes.find(data) + 1000] ^= 1;
  const auto reader = test::run_reader(host, test::linked_plugin(host));
  REQUIRE(reader);
  CHECK((*reader)->read(dense_range(1, 100'000, 100'000), 200'000));
  CHECK((*reader)->read(dense_range(1, 20'000, 90'000), 180'000));
  CHECK((*reader)->read(dense_range(1, 0, 10'000), 20'000));
  CHECK((*reader)->read(dense_range(1, 5'000, 20'000), 40'000).error().code == XD_CORRUPT);
}

TEST_CASE("npz reader: whatever fails, nothing is kept and the reason is told") {
  uint64_t n_failed = 0;
  for (uint64_t n = 1;; ++n) {
    MemoryHost host;
    set_file(host);
    host.fail_at = n;
    const auto run = [&]() -> Result<void> {
      XD_TRY_SET(const auto reader, test::run_reader(host, test::linked_plugin(host)));
      XD_TRY(reader->read(0));
      XD_TRY(reader->read(1));
      return {};
    };
    const auto done = run();
    if (host.calls < n) break;
    INFO(n);
    REQUIRE_FALSE(done.has_value());
    CHECK((done.error().code == XD_IO || done.error().code == XD_NO_MEMORY));
    CHECK(host.allocated == 0);
    ++n_failed;
  }
  CHECK(n_failed > 10);
}
