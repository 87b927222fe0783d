// SPDX-License-Identifier: Apache-2.0
#include "core/convert/open_model.h"

#include <thread>

#include "core/convert/inspect.h"
#include "core/io/sha256.h"
#include "tests/unit/core_fake_plugins.h"

using namespace crossdock;
using namespace crossdock::test;
using convert::OpenModel;
using manifest::DType;

namespace {

FakeModel small() {
  return FakeModel()
      .add("a", DType::F32, {2, 2}, "0123456789abcdef")
      .add("b", DType::U8, {3}, "xyz");
}

// What a test may change before the model is opened.
struct Fixture {
  TempDir dir;
  FakeModel fake = small();
  std::atomic<bool> cancelled{false};
  base::Memory memory{64 << 20};
  plugin::Host host{io::Os::real(), memory, cancelled};
  plugin::Registry registry;

  Result<std::unique_ptr<OpenModel>> open(const std::string& from = "auto",
                                          uint64_t writer_caps = 0) {
    put(dir / "values", fake.values);
    FakeReader::model = fake.manifest;
    if (registry.plugins().empty()) registry.add("here", &kFakeReader);
    return OpenModel::open(host, registry, *io::open_input(dir.path().string()), from, {},
                           writer_caps);
  }
  Result<manifest::Manifest> describe() {
    XD_TRY_SET(const auto model, open());
    return model->describe();
  }
};

// A copy of the fake reader under another id, with a probe of its own.
template <int kScore, uint64_t kCaps = 0>
const xd_plugin_desc& reader_of_score(const char* id) {
  static xd_reader_api api = kReaderApi<FakeReader>;
  api.probe = [](xd_call*, const xd_input*) -> int32_t { return kScore; };
  static xd_plugin_desc desc = kFakeReader;
  desc.id = id;
  desc.caps |= kCaps;
  desc.reader = &api;
  return desc;
}

}  // namespace

TEST_CASE("the reader whose probe scores best reads, the first of equals") {
  Fixture f;
  f.registry.add("1", &reader_of_score<0>("never"));
  f.registry.add("2", &reader_of_score<10>("unsure"));
  f.registry.add("3", &reader_of_score<90>("sure"));
  f.registry.add("4", &reader_of_score<90>("late"));
  CHECK((*f.open())->reader().id() == "sure");
  CHECK((*f.open("unsure"))->reader().id() == "unsure");
  CHECK(message(f.open("none")) ==
        "--from: expected one of auto, fake, fake, fake, fake, found none");
}

TEST_CASE("a writer of training states reads from a reader that gives one") {
  Fixture f;
  f.registry.add("1", &reader_of_score<90>("weights"));
  f.registry.add("2", &reader_of_score<80, XD_CAP_TRAINING_STATE>("state"));
  f.registry.add("3", &reader_of_score<70, XD_CAP_TRAINING_STATE>("unsure"));
  CHECK((*f.open())->reader().id() == std::string("weights"));
  CHECK((*f.open("auto", XD_CAP_TRAINING_STATE))->reader().id() == std::string("state"));
}

TEST_CASE("an option of a reader that is not chosen is refused") {
  static constexpr xd_option_desc kOption = {
      XD_INIT_SIZE(xd_option_desc), 0, "shape", "string", "", "of the other"};
  static constexpr const xd_option_desc* kOptions[] = {&kOption, nullptr};
  Fixture f;
  xd_plugin_desc other = reader_of_score<10>("other");
  static constexpr const char* kFormats[] = {"round", nullptr};
  other.options = kOptions;
  other.formats = kFormats;
  f.registry.add("1", &other);
  f.registry.add("2", &reader_of_score<90>("chosen"));
  const auto message_of = [&](const plugin::GivenOptions& given) {
    put(f.dir / "values", f.fake.values);
    auto opened =
        OpenModel::open(f.host, f.registry, *io::open_input(f.dir.path().string()), "auto", given);
    return opened ? "" : opened.error().message;
  };
  CHECK(message_of({}).empty());
  CHECK(message_of({{"dequant-dtype", {"bf16"}}}).empty());
  CHECK(message_of({{"shape", {"x"}}}) ==
        "--shape: expected a source in the format round, found one that fake reads: leave the flag "
        "out, or choose with --from");
}

TEST_CASE("a source that no reader takes is refused with what was found") {
  Fixture f;
  f.registry.add("1", &reader_of_score<0>("never"));
  put(f.dir / "notes.txt");
  const auto result = f.open();
  CHECK(contains(
      message(result),
      "expected a checkpoint in a format that can be read (fake), found notes.txt, values in " +
          f.dir.path().string()));
  CHECK(result.error().code == XD_UNSUPPORTED_DATA);
}

TEST_CASE("what the reader says is checked") {
  Fixture f;
  SECTION("a manifest that breaks its promises") {
    f.fake.manifest.tensors[1].extents[0].offset = 100;
    CHECK(message(f.describe()) == f.dir.path().string() +
                                       ": tensor \"b\": expected bytes inside values of 19 bytes, "
                                       "found 3 at 100 [org.example.reader.fake: manifest]");
  }
  SECTION("an expression, which is the host's") {
    f.fake.manifest.tensors[1].expression = "a";
    CHECK(message(f.describe()) ==
          "expected tensors without expressions, which are the host's, found one in b "
          "[org.example.reader.fake: manifest]");
  }
  SECTION("where a file lies, which the host knows") {
    f.fake.manifest.source.files[0].path = "/etc/passwd";
    CHECK(message(f.describe()) ==
          "expected files without paths, which are the host's, found one of values "
          "[org.example.reader.fake: manifest]");
  }
  SECTION("bytes that are no manifest") {
    static xd_reader_api api = kReaderApi<FakeReader>;
    api.manifest = [](xd_call*, xd_reader*, xd_bytes* out) -> xd_status {
      out->data = "\xFF\xFF";
      return XD_OK;
    };
    static xd_plugin_desc desc = kFakeReader;
    desc.reader = &api;
    f.registry.add("here", &desc);
    CHECK(
        contains(message(f.describe()), "manifest: expected protobuf bytes, found a broken field"));
  }
  SECTION("an auxiliary file with a name that leads out") {
    f.fake.manifest.aux_files.push_back(
        {manifest::AuxKind::kConfig, "../config.json", std::string("values")});
    CHECK(message(f.describe()) ==
          "expected a plain relative name for an auxiliary file, found ../config.json "
          "[org.example.reader.fake: manifest]");
  }
  SECTION("an auxiliary file that is not there") {
    f.fake.manifest.aux_files.push_back(
        {manifest::AuxKind::kConfig, "config.json", std::string("none")});
    CHECK(message(f.describe()) ==
          "expected the auxiliary file none in the source, found none "
          "[org.example.reader.fake: manifest]");
  }
}

TEST_CASE("values, and who read them") {
  Fixture f;
  const auto model = *f.open();
  std::string out(8, '-');
  REQUIRE(model->read(0, 1, 2, {reinterpret_cast<std::byte*>(out.data()), 8}));
  CHECK(out == "456789ab");
  const auto made_by = model->describe()->provenance;
  REQUIRE(made_by.size() == 1);
  CHECK(made_by[0].tool == "crossdock " CROSSDOCK_VERSION);
  CHECK(made_by[0].plugin == "org.example.reader.fake 1.2.3");
  CHECK(made_by[0].input == f.dir.path().string());
}

TEST_CASE("a reader that gives no values is found out, whatever was in the buffer") {
  static xd_reader_api api = kReaderApi<FakeReader>;
  static uint64_t given = 0;  // bytes of each read
  api.read = [](xd_call*, xd_reader*, const xd_range*, void* dst, uint64_t) -> xd_status {
    std::memset(dst, 7, given);
    return XD_OK;
  };
  static xd_plugin_desc desc = kFakeReader;
  desc.reader = &api;
  Fixture f;
  f.registry.add("here", &desc);
  const auto model = *f.open();
  std::string out(16, '-');
  const auto read = [&] { return model->read(0, 0, 4, std::as_writable_bytes(std::span(out))); };
  for (const uint64_t n : {0, 8}) {
    given = n;
    CHECK(contains(message(read()), "it said that it read values, and gave none"));
  }
  given = 16;
  CHECK(read());
}

TEST_CASE("tensors are the reader's own, or picked out of a storage") {
  FakeModel fake = small();
  fake.add("t", DType::U8, {3, 2}, "abcdef");  // as the transposed of a stored [2, 3]
  fake.manifest.tensors[2].strides = {1, 3};
  fake.manifest.tensors[2].storage_elements = 6;
  OpenFake plain(small()), open(fake);
  CHECK(plain.model().scratch_bytes() == 0);
  CHECK(open.model().scratch_bytes() > 0);
  const auto read = [&](uint64_t tensor, uint64_t begin, uint64_t count, size_t bytes) {
    std::string out(bytes, '-');
    REQUIRE(
        open.model().read(tensor, begin, count, {reinterpret_cast<std::byte*>(out.data()), bytes}));
    return out;
  };
  CHECK(read(0, 1, 2, 8) == "456789ab");
  CHECK(read(2, 0, 6, 6) == "adbecf");
  CHECK(read(2, 1, 4, 4) == "dbec");
  CHECK(read(2, 6, 0, 0).empty());
  const manifest::Tensor& t = open.model().manifest().tensors[2];
  CHECK(t.expression == "strided([1, 3], t)");
  CHECK(t.strides.empty());
}

TEST_CASE("a source's tensors in another order") {
  OpenFake open(small());
  manifest::Manifest m = open.model().manifest();
  std::swap(m.tensors[0], m.tensors[1]);
  using transform::Expression;
  convert::TensorSource source(
      open.opened(), m,
      {Expression::stored(1, DType::U8, {3}), Expression::stored(0, DType::F32, {2, 2})});
  CHECK(source.scratch_bytes() == 0);
  std::string out(3, '-');
  REQUIRE(source.read(0, 0, 3, {reinterpret_cast<std::byte*>(out.data()), 3}));
  CHECK(out == "xyz");
}

TEST_CASE("auxiliary files come from the source, or from the reader") {
  Fixture f;
  put(f.dir / "config.json", "{\"a\": 1}");
  f.fake.manifest.aux_files = {
      {manifest::AuxKind::kConfig, "config.json", std::string("config.json")},
      {manifest::AuxKind::kTokenizer, "made.json", manifest::Bytes{"0123456789"}}};
  const auto model = *f.open();
  const auto files = model->describe()->aux_files;
  CHECK(model->aux_size(files[0]) == 8);
  CHECK(model->aux_size(files[1]) == 10);
  std::string out(3, '-');
  REQUIRE(model->read_aux(files[0], 1, {reinterpret_cast<std::byte*>(out.data()), 3}));
  CHECK(out == "\"a\"");
  REQUIRE(model->read_aux(files[1], 7, {reinterpret_cast<std::byte*>(out.data()), 3}));
  CHECK(out == "789");
  fs::resize_file(f.dir / "config.json", 2);
  CHECK(
      contains(message(model->read_aux(files[0], 1, {reinterpret_cast<std::byte*>(out.data()), 3})),
               "config.json: expected 3 bytes at offset 1"));
}

TEST_CASE("a reader that is not concurrent is called by one thread at a time") {
  static std::atomic<int> inside, most;
  inside = most = 0;
  static xd_reader_api api = kReaderApi<FakeReader>;
  api.read = [](xd_call* c, xd_reader* r, const xd_range* range, void* dst,
                uint64_t n) -> xd_status {
    const int now = ++inside;
    for (int old = most; old < now && !most.compare_exchange_weak(old, now);) {
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    const xd_status status = kReaderApi<FakeReader>.read(c, r, range, dst, n);
    --inside;
    return status;
  };
  static xd_plugin_desc desc = kFakeReader;
  desc.reader = &api;
  desc.caps = 0;
  Fixture f;
  f.registry.add("here", &desc);
  const auto model = *f.open();
  std::vector<std::thread> threads;
  std::atomic<int> failures{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 10; ++i) {
        std::byte out[3];
        failures += !model->read(1, 0, 3, out).has_value();
      }
    });
  }
  for (auto& t : threads) t.join();
  CHECK(failures == 0);
  CHECK(most == 1);
}

TEST_CASE("digests of all tensors, over their values") {
  Fixture f;
  const std::string large(3'000'000, 'z');
  f.fake.add("large", DType::F64, {375'000}, large).add("none", DType::F32, {0}, "");
  const auto model = *f.open();
  convert::TensorSource source(*model, *model->describe());
  for (const unsigned threads : {1u, 4u}) {
    uint64_t done = 0, total = 0;
    const auto digests =
        convert::digest_tensors(source, convert::DigestKind::kSha256, threads, f.cancelled,
                                [&](uint64_t d, uint64_t t) { done = d, total = t; });
    REQUIRE(digests);
    REQUIRE(digests->size() == 4);
    io::Sha256 whole;
    whole.update(as_bytes(large));
    // printf 0123456789abcdef | sha256sum; printf xyz | sha256sum
    CHECK((*digests)[0] ==
          "sha256:9f9f5111f7b27a781f1f1ddde5ebc2dd2b796bfc7365c9c28b548e564176929f");
    CHECK((*digests)[1] ==
          "sha256:3608bca1e44ea6c4d268eb6db02260269892c0b42b86bbf1e77a6fa16c3c9282");
    CHECK((*digests)[2] == whole.finish());
    CHECK((*digests)[3] ==
          "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    const auto trees =
        convert::digest_tensors(source, convert::DigestKind::kTree, threads, f.cancelled, {});
    REQUIRE(trees);
    CHECK(*trees == std::vector<std::string>{tree_digest_of("0123456789abcdef"),
                                             tree_digest_of("xyz"), tree_digest_of(large),
                                             tree_digest_of("")});
  }
  f.cancelled = true;
  CHECK(convert::digest_tensors(source, convert::DigestKind::kTree, 2, f.cancelled, {})
            .error()
            .code == XD_CANCELLED);
}
