// SPDX-License-Identifier: Apache-2.0

// Objects whose size is known when they are sealed, and tensors that are read from their start to
// their end: what runs one after the other, whatever the threads.
#include "core/convert/convert.h"

#include "core/report/report.h"

#include "tests/unit/core_fake_plugins.h"

using namespace crossdock;
using namespace crossdock::test;
using manifest::DType;

namespace {

// Writes all tensors into one file, each with its length in front, one byte at a time of them; the
// trailer tells what the host read back.
class Appender : public Writer {
 public:
  static inline uint32_t flags = XD_OBJECT_SIZE_AT_SEAL | XD_OBJECT_IN_ORDER;
  static inline uint64_t bound = 1000;
  static inline std::atomic<int> inside, most;
  static inline std::string seen;  // of the first bytes, in seal()

  explicit Appender(manifest::Manifest m) : m_(std::move(m)) {}
  static Result<std::unique_ptr<Writer>> open(const Host&, manifest::Manifest m, const Options&) {
    return std::unique_ptr<Writer>(std::make_unique<Appender>(std::move(m)));
  }
  Result<void> plan(const Host&, Plan& out) override {
    XD_TRY_SET(const uint32_t object, out.object("all", bound, flags));
    kept_.clear();
    for (uint64_t i = 0; i < m_.tensors.size(); ++i) {
      if (!m_.tensors[i].excluded.empty()) continue;
      kept_.push_back(i);
      const xd_range need = dense_range(i, 0, *checked_product(m_.tensors[i].shape));
      XD_TRY(out.item(object, {&need, 1}, need.count + 8, 4096));
    }
    return {};
  }
  Result<std::string> write_item(const Host& host, uint32_t, uint64_t item, Object& out) override {
    const int now = ++inside;
    for (int old = most; old < now && !most.compare_exchange_weak(old, now);) {
    }
    const uint64_t n = *checked_product(m_.tensors[kept_[item]].shape);
    std::string bytes;
    put_le(bytes, n);
    bytes.resize(8 + n);
    XD_TRY(read_tensor(host, dense_range(kept_[item], 0, n),
                       std::as_writable_bytes(std::span(bytes).subspan(8))));
    const uint64_t begin = out.size();
    for (size_t i = 0; i < bytes.size(); ++i)
      XD_TRY(out.write(begin + i, as_bytes(bytes).subspan(i, 1)));
    --inside;
    return std::to_string(begin);
  }
  Result<void> seal(const Host&, uint32_t, Object& out,
                    std::span<const std::string_view> results) override {
    seen.assign(8, '-');
    XD_TRY(out.read(0, std::as_writable_bytes(std::span(seen))));
    std::string places;
    for (const std::string_view result : results) places += cat(result, ";");
    return out.write(out.size(), as_bytes(places));
  }

 private:
  manifest::Manifest m_;
  std::vector<uint64_t> kept_;  // tensors, by items
};

constexpr xd_plugin_desc kAppender = writer_plugin<Appender>({.id = "org.example.writer.appender",
                                                              .version = "1",
                                                              .summary = "for tests",
                                                              .formats = kFakeFormats});

struct Fixture {
  TempDir dir;
  FakeModel fake = FakeModel()
                       .add("a", DType::U8, {5}, "abcde")
                       .add("b", DType::U8, {3}, "xyz")
                       .add("c", DType::U8, {4}, "1234");
  plugin::Registry registry;
  std::atomic<bool> cancelled{false};
  convert::Request request;

  Fixture() {
    registry.add("here", &kFakeReader);
    registry.add("here", &kAppender);
    request.source = (dir / "src").string();
    request.destination = (dir / "out").string();
    request.to = "fake";
    request.memory = 16 << 20;
    request.threads = 4;
    request.sync = false;
    Appender::flags = XD_OBJECT_SIZE_AT_SEAL | XD_OBJECT_IN_ORDER;
    Appender::bound = 1000;
    Appender::most = 0;
  }
  Result<convert::Outcome> run() {
    put(dir / "src/values", fake.values);
    FakeReader::model = fake.manifest;
    return convert::convert(request, registry, io::Os::real(), cancelled, {});
  }
};

std::string with_length(const std::string& text) {
  std::string out;
  put_le(out, uint64_t{text.size()});
  return out + text;
}

const std::string kAll =
    with_length("abcde") + with_length("xyz") + with_length("1234") + "0;13;24;";

}  // namespace

TEST_CASE("an object of unknown size ends with its last byte, and its items run in order") {
  Fixture f;
  const auto done = f.run();
  INFO((done ? "" : done.error().message));
  REQUIRE(done);
  CHECK(get(f.dir / "out/all") == kAll);
  CHECK(Appender::most == 1);
  CHECK(Appender::seen == with_length("abcde").substr(0, 8));
  const auto report = report::from_json(get(f.dir / "out/crossdock.json"));
  REQUIRE(report);
  REQUIRE(report->files.size() == 1);
  CHECK(report->files[0].size == kAll.size());
  CHECK(report->files[0].digest == tree_digest_of(kAll));
}

TEST_CASE("more than the bound, or a gap, is refused") {
  Fixture f;
  Appender::bound = 30;
  CHECK(contains(message(f.run()), "expected a write inside 30 bytes"));
  CHECK_FALSE(fs::exists(f.dir / "out"));
}

TEST_CASE("an object of known size in order must be filled") {
  Fixture f;
  Appender::flags = XD_OBJECT_IN_ORDER;
  Appender::bound = kAll.size();
  REQUIRE(f.run());
  CHECK(get(f.dir / "out/all") == kAll);
  Fixture g;
  Appender::flags = XD_OBJECT_IN_ORDER;
  CHECK(contains(message(g.run()), "expected all of 1000 bytes to be written"));
  CHECK(contains(message(g.run()), "[org.example.writer.appender: seal]"));
}

TEST_CASE("tensors that share their storage must hold the same") {
  Fixture f;
  f.fake.add("b2", DType::U8, {3}, "xyw");
  f.fake.manifest.alias_groups = {{{1, 3}}};
  CHECK(contains(message(f.run()), "expected the same values in b and b2"));
  CHECK_FALSE(fs::exists(f.dir / "out"));
}

TEST_CASE("a writer may take quantised weights as they are stored") {
  xd_plugin_desc takes_codes = kFakeWriter;
  for (const bool takes : {false, true}) {
    CAPTURE(takes);
    Fixture f;
    f.fake = FakeModel()
                 .add("w", DType::F8_E4M3, {2, 2}, "abcd")
                 .add("w_scale_inv", DType::F32, {1, 1}, std::string("\0\0\0\x40", 4));
    manifest::ValueMap method{{{"quant_method", {std::string("fp8")}}}};
    f.fake.manifest.source.config = {manifest::ValueMap{{{"quantization_config", {method}}}}};
    f.registry = plugin::Registry();
    f.registry.add("here", &kFakeReader);
    takes_codes.caps = XD_CAP_CONCURRENT | (takes ? XD_CAP_QUANTISED | XD_CAP_FILE_NAMES : 0);
    f.registry.add("here", &takes_codes);
    f.request.dry_run = true;
    const auto done = f.run();
    INFO((done ? "" : done.error().message));
    const auto& got = FakeWriter::got.tensors;
    if (takes) {
      REQUIRE(got.size() == 2);
      CHECK(got[0].dtype == DType::F8_E4M3);
      CHECK(got[1].excluded.empty());
    } else {
      const bool is_plain = !done || got[0].dtype != DType::F8_E4M3;
      CHECK(is_plain);
    }
  }
}
