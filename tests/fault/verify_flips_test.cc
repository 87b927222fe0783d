// SPDX-License-Identifier: Apache-2.0

// One bit flipped anywhere, in what a writer wrote or in what it was made of, and the checks of it:
// each must be found, and the file be named.
#include <random>

#include "tests/fault/verify_job.h"

using namespace crossdock;
using namespace crossdock::test;

namespace {

constexpr int kFlips = 1000;

// Files below a folder, and a bit of all their bytes as a number.
class Bits {
 public:
  explicit Bits(const fs::path& folder) {
    for (fs::recursive_directory_iterator it(folder), end; it != end; ++it) {
      if (!fs::is_regular_file(it->status())) continue;
      files_.push_back({it->path(), fs::file_size(it->path())});
      n_bytes_ += files_.back().second;
    }
  }
  uint64_t n_bytes() const { return n_bytes_; }
  size_t n_files() const { return files_.size(); }

  // Flips a bit and gives the file's path; the same call flips it back.
  fs::path flip(uint64_t byte, unsigned bit) const {
    size_t i = 0;
    for (; byte >= files_[i].second; ++i) byte -= files_[i].second;
    std::fstream file(files_[i].first.string(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(static_cast<std::streamoff>(byte));
    char value = 0;
    file.get(value);
    file.seekp(static_cast<std::streamoff>(byte));
    file.put(static_cast<char>(value ^ (1 << bit)));
    file.close();
    REQUIRE(file);
    return files_[i].first;
  }

  // Flips a thousand bits, one at a time: half of them anywhere, half of them in files that are
  // chosen first, so that small ones are hit too.
  template <class Check>
  void flip_all(Check&& check) const {
    std::mt19937_64 random(20);
    for (int i = 0; i < kFlips; ++i) {
      uint64_t byte = random() % n_bytes_;
      if (i % 2 == 0) {
        byte = 0;
        const size_t chosen = random() % files_.size();
        if (files_[chosen].second == 0) continue;
        for (size_t k = 0; k < chosen; ++k) byte += files_[k].second;
        byte += random() % files_[chosen].second;
      }
      const unsigned bit = random() % 8;
      const fs::path file = flip(byte, bit);
      INFO("byte " << byte << ", bit " << bit << ", of " << file);
      check(file);
      flip(byte, bit);
    }
  }

 private:
  std::vector<std::pair<fs::path, uint64_t>> files_;
  uint64_t n_bytes_ = 0;
};

}  // namespace

TEST_CASE("a bit flipped in anything that a writer wrote is found, and the file is named") {
  for (const CheckedFormat& format : checked_formats()) {
    INFO(format.to);
    CheckedJob job(format);
    INFO(told(job.alone()));
    REQUIRE(is_sound(job.alone()));
    const Bits bits(job.out());
    int n_found = 0, n_named = 0;
    bits.flip_all([&](const fs::path& file) {
      const auto verdict = job.alone();
      CHECK_FALSE(is_sound(verdict));
      n_found += is_sound(verdict) ? 0 : 1;
      n_named += contains(told(verdict), file.lexically_relative(job.out()).string()) ? 1 : 0;
    });
    CHECK(n_found == kFlips);
    CHECK(n_named == kFlips);
    CHECK(is_sound(job.alone()));
  }
}

TEST_CASE("a bit flipped in anything of the source that was read is found") {
  for (const CheckedFormat& format : checked_formats()) {
    INFO(format.to);
    CheckedJob job(format);
    INFO(told(job.against()));
    REQUIRE(is_sound(job.against()));
    const Bits bits(job.src());
    int n_found = 0;
    bits.flip_all([&](const fs::path&) {
      const auto verdict = job.against();
      CHECK_FALSE(is_sound(verdict));
      n_found += is_sound(verdict) ? 0 : 1;
    });
    CHECK(n_found == kFlips);
    CHECK(is_sound(job.against()));
  }
}

TEST_CASE("a file that is missing, cut off, of other bytes or put there is told by its name") {
  for (const CheckedFormat& format : checked_formats()) {
    INFO(format.to);
    CheckedJob job(format);
    const auto report = verify::read_report(io::Os::real(), job.out());
    REQUIRE(report);
    for (const report::File& file : report->files) {
      const fs::path path = job.out() / file.path;
      const std::string was = get(path);
      for (const auto depth : {verify::Depth::kQuick, verify::Depth::kFull}) {
        put(path, was + "x");
        CHECK(contains(told(job.alone(io::Os::real(), depth)),
                       cat(file.path, ": expected ", file.size, " bytes, found ", file.size + 1)));
        fs::remove(path);
        CHECK(contains(told(job.alone(io::Os::real(), depth)),
                       cat(file.path, ": expected this file, found none")));
        fs::create_directory(path);
        CHECK(contains(told(job.alone(io::Os::real(), depth)),
                       cat(file.path, ": expected a regular file")));
        fs::remove(path);
        put(path, was);
      }
    }
    put(job.out() / "mine.txt");
    const auto verdict = job.alone();
    CHECK(is_sound(verdict));
    CHECK(verdict->notes ==
          std::vector<std::string>{"1 file is there that the report does not list: mine.txt."});
  }
}

TEST_CASE("what was written is checked before it is published") {
  for (const CheckedFormat& format : checked_formats()) {
    INFO(format.to);
    CheckedJob job(format);
    const auto sound = job.written();
    INFO((sound ? "" : sound.error().message));
    CHECK(sound);
    const auto report = verify::read_report(io::Os::real(), job.out());
    const std::string name = report->files[0].path;
    const std::string was = get(job.out() / name);
    std::string changed = was;
    changed[was.size() / 2] = static_cast<char>(changed[was.size() / 2] ^ 16);
    put(job.out() / name, changed);
    const auto found = job.written();
    REQUIRE_FALSE(found);
    CHECK(found.error().code == XD_CORRUPT);
    CHECK(contains(found.error().message, "expected what was written to be what was read, found "));
    CHECK(contains(found.error().message, cat(": ", name, ": expected tree:")));
  }
}

TEST_CASE("the first element that differs from the source is told with both values") {
  for (const CheckedFormat& format : checked_formats()) {
    INFO(format.to);
    CheckedJob job(format);
    const fs::path file = job.src() / "model-00001-of-00002.safetensors";
    std::string bytes = get(file);
    const size_t data = bytes.size() - 20 - 5120;
    const auto set = [&](size_t element, uint16_t bf16) {
      std::memcpy(&bytes[data + 2 * element], &bf16, 2);
    };
    set(40 * 3 + 17, 0x3FC0);  // 1.5
    set(40 * 3 + 18, 0x4000);
    put(file, bytes);
    const auto verdict = job.against();
    CHECK(contains(told(verdict), "tensor \"model.embed.weight\" [3, 17]: source 1.5"));
    CHECK(contains(told(verdict), "destination 0.0"));
    REQUIRE(verdict);
    CHECK(verdict->n_problems == 1);  // the rest of it is as it was
    CHECK(contains(cat(verdict->notes.at(0)), "1 of "));
  }
}
