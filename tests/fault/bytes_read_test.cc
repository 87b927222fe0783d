// SPDX-License-Identifier: Apache-2.0

// How much a conversion reads, with the real plugins: the source once, however it is cut.
#include <random>

#include "core/convert/convert.h"
#include "tests/fault/real_plugins.h"
#include "tests/unit/core_test_support.h"

using namespace crossdock;
using namespace crossdock::test;
using manifest::DType;

namespace {

// Counts bytes read, of the source and of what was staged alike.
struct ReadingOs : io::Os {
  std::atomic<uint64_t> n_bytes{0};
  ssize_t pread(int fd, void* dst, size_t n, uint64_t offset) override {
    const ssize_t got = Os::pread(fd, dst, n, offset);
    n_bytes += got > 0 ? static_cast<uint64_t>(got) : 0;
    return got;
  }
};

// A model of BF16 tensors in one safetensors file, and the description of its module.
class Source {
 public:
  void add(const std::string& name, std::vector<uint64_t> shape) {
    uint64_t n = 2;
    for (const uint64_t dim : shape) n *= dim;
    header_ += cat(header_.empty() ? "{" : ",", '"', name, R"(":{"dtype":"BF16","shape":[)");
    for (size_t i = 0; i < shape.size(); ++i) header_ += cat(i ? "," : "", shape[i]);
    header_ += cat(R"(],"data_offsets":[)", data_.size(), ",", data_.size() + n, "]}");
    values_.push_back(random_bytes(n));
    data_ += values_.back();
    module_.tensors.push_back(tensor(name, DType::BF16, std::move(shape)));
    module_.tensors.back().role = manifest::Role::kParameter;
    module_.tensors.back().train = manifest::Training::kTrainable;
  }
  // Gives the size of the file.
  uint64_t put_into(const TempDir& dir) const {
    std::string file;
    put_le(file, uint64_t{header_.size() + 1});
    file += header_ + "}" + data_;
    put(dir / "src/model.safetensors", file);
    put(dir / "target.pb", manifest::encode(module_));
    return file.size();
  }
  const std::vector<std::string>& values() const { return values_; }

 private:
  std::string random_bytes(size_t n) {
    std::string out(n, '\0');
    for (size_t at = 0; at < n; at += 8) {
      const uint64_t word = random_();
      std::memcpy(out.data() + at, &word, std::min<size_t>(8, n - at));
    }
    return out;
  }

  std::mt19937_64 random_{1};
  std::string header_, data_;
  std::vector<std::string> values_;
  manifest::Manifest module_;
};

struct Run {
  uint64_t read = 0;
  std::string report;
};
Run convert_to(const std::string& format, const TempDir& dir, unsigned threads, uint64_t memory,
               plugin::GivenOptions options) {
  convert::Request request;
  request.source = (dir / "src").string();
  request.destination = (dir / "out").string();
  request.to = format;
  request.target.description = (dir / "target.pb").string();
  request.writer_options = std::move(options);
  request.threads = threads;
  request.memory = memory;
  request.overwrite = true;
  request.sync = false;
  ReadingOs os;
  const std::atomic<bool> never{false};
  const auto outcome = convert::convert(request, registry(), os, never, {});
  INFO((outcome ? "" : outcome.error().message));
  REQUIRE(outcome);
  return {os.n_bytes, outcome->report};
}

const plugin::GivenOptions kEightRanks{
    {"world-size", {"8"}}, {"lr", {"0.001"}}, {"weight-decay", {"0"}}};

void check_digests(const Source& source, const std::string& report) {
  for (const std::string& values : source.values())
    CHECK(contains(report, cat('"', tree_digest_of(values), '"')));
}

Source layers() {
  Source out;
  for (int i = 0; i < 4; ++i) out.add(cat("layers.", i, ".up"), {1'111, 1'001});
  out.add("norm", {3});
  return out;
}

}  // namespace

TEST_CASE("zero3 for eight ranks reads tensors of some MiB once") {
  const TempDir dir;
  Source source;
  source.add("embed", {3'001, 700});  // 4 MiB; an eighth ends within a leaf
  for (int i = 0; i < 6; ++i) source.add(cat("layers.", i, ".up"), {1'111, 1'001 + 16u * i});
  source.add("norm", {700});
  const uint64_t size = source.put_into(dir);
  for (const unsigned threads : {1u, 4u}) {
    for (const uint64_t memory : {uint64_t{1} << 30, convert::kMinMemory}) {
      INFO(threads << " threads, " << memory << " bytes of memory");
      const Run run = convert_to("zero3", dir, threads, memory, kEightRanks);
      CHECK(run.read >= size);
      CHECK(run.read <= size + size / 20);
      check_digests(source, run.report);
    }
  }
}

TEST_CASE("many small tensors are read once too, as far as there is room for their seams") {
  const TempDir dir;
  Source source;
  for (int i = 0; i < 300; ++i) source.add(cat("experts.", i), {65, 100u + i % 7});  // 13 kB
  const uint64_t size = source.put_into(dir);
  const Run run = convert_to("zero3", dir, 2, 1 << 30, kEightRanks);
  CHECK(run.read <= size + size / 20);
  check_digests(source, run.report);
}

TEST_CASE("universal reads the source once, and nothing of what it wrote") {
  const TempDir dir;
  Source source = layers();
  const uint64_t size = source.put_into(dir);
  const Run run = convert_to("universal", dir, 2, 1 << 30, {});
  CHECK(run.read >= size);
  CHECK(run.read <= size + 4'096);
  check_digests(source, run.report);
}

TEST_CASE("safetensors reads the source once, whatever the shards and the element type") {
  const TempDir dir;
  Source source = layers();
  const uint64_t size = source.put_into(dir);
  for (const char* dtype : {"source", "fp32"}) {
    INFO(dtype);
    const Run run =
        convert_to("safetensors", dir, 2, 1 << 30, {{"shard-size", {"5MB"}}, {"dtype", {dtype}}});
    CHECK(run.read >= size);
    CHECK(run.read <= size + 4'096);
    check_digests(source, run.report);
  }
}

TEST_CASE(
    "where a cast makes infinities the source is looked at again there, and its digest holds") {
  const TempDir dir;
  Source source;  // random bits: a good part of bf16 is beyond fp16, and some are infinite
  for (int i = 0; i < 3; ++i) source.add(cat("layers.", i, ".up"), {1'111, 1'001});
  const uint64_t size = source.put_into(dir);
  const Run run = convert_to("safetensors", dir, 2, 1 << 30,
                             {{"dtype", {"fp16"}}, {"allow-overflow", {"true"}}});
  CHECK(run.read <= 2 * size + 4'096);
  check_digests(source, run.report);
  CHECK(contains(run.report, "values beyond fp16 became infinite, the first in tensor"));
}
