// SPDX-License-Identifier: Apache-2.0

// The whole job with plugins of the test's own. With the real ones, and every system call failing
// in turn: tests/fault.
#include "core/convert/convert.h"

#include <simdjson.h>

#include <cstring>

#include "tests/unit/core_fake_plugins.h"

using namespace crossdock;
using namespace crossdock::test;
using manifest::DType;

namespace {

std::string floats(std::initializer_list<float> values) {
  std::string out;
  for (const float v : values) put_le(out, std::bit_cast<uint32_t>(v));
  return out;
}
// BF16 keeps the upper half of a float.
std::string brains(std::initializer_list<float> values) {
  std::string out;
  for (const float v : values) put_le(out, static_cast<uint16_t>(std::bit_cast<uint32_t>(v) >> 16));
  return out;
}

struct Fixture {
  TempDir dir;
  FakeModel fake = FakeModel()
                       .add("w", DType::BF16, {3}, brains({1, -2, 0.5f}))
                       .add("v", DType::F32, {2, 1}, floats({3, 4}));
  plugin::Registry registry;
  std::atomic<bool> cancelled{false};
  convert::Callbacks callbacks;
  convert::Request request;
  const fs::path out = dir / "out";

  Fixture() {
    registry.add("here", &kFakeReader);
    registry.add("here", &kFakeWriter);
    FakeWriter::hook = nullptr;
    request.source = (dir / "src").string();
    request.destination = out.string();
    request.to = "fake";
    request.memory = 16 << 20;
    request.threads = 2;
    request.sync = false;
  }
  ~Fixture() { FakeWriter::hook = nullptr; }

  Result<convert::Outcome> run() {
    put(dir / "src/values", fake.values);
    FakeReader::model = fake.manifest;
    return convert::convert(request, registry, io::Os::real(), cancelled, callbacks);
  }
  // The refusal, after which DST and its neighbours must be as before.
  std::string refused() {
    const auto before = tree(out);
    const std::string text = message(run());
    CHECK(tree(out) == before);
    CHECK_FALSE(fs::exists(dir / "out.partial"));
    return text;
  }
};

}  // namespace

TEST_CASE("values are cast, items' results reach the seal, and the report tells all") {
  Fixture f;
  put(f.dir / "src/config.json", "{}");
  f.fake.manifest.aux_files.push_back(
      {manifest::AuxKind::kConfig, "config.json", std::string("config.json")});
  uint64_t done = 0, total = 0;
  size_t planned = 0;
  f.callbacks.progress = [&](uint64_t d, uint64_t t, uint64_t) { done = d, total = t; };
  f.callbacks.planned = [&](const convert::Forecast& forecast) { planned = forecast.files; };
  const auto outcome = f.run();
  INFO((outcome ? "" : outcome.error().message));
  REQUIRE(outcome);
  const auto made = tree(f.out);
  CHECK(made.at("t/w") == floats({1, -2, 0.5f}) + "01");
  CHECK(made.at("t/v") == floats({3, 4}) + "01");
  CHECK(made.at("config.json") == "{}");
  CHECK(made.at("crossdock.json") == outcome->report);
  CHECK(made.size() == 5);
  CHECK(done == total);
  CHECK(total == 20);
  CHECK(planned == 3);

  simdjson::dom::parser parser;
  simdjson::dom::element root;
  REQUIRE(parser.parse(outcome->report).get(root) == simdjson::SUCCESS);
  CHECK(std::string_view(root["tensors"].at(0)["digest"]) == tree_digest_of(brains({1, -2, 0.5f})));
  CHECK(std::string_view(root["files"].at(0)["digest"]) ==
        tree_digest_of(floats({1, -2, 0.5f}) + "01"));
  CHECK(simdjson::minify(root["notes"]) == R"(["a note of the writer"])");
  const auto report = report::from_json(outcome->report);
  REQUIRE(report);
  CHECK(report->reader.id == "org.example.reader.fake");
  CHECK(report->writer.id == "org.example.writer.fake");
  CHECK_FALSE(report->writer.version.empty());
  CHECK(report->tensors[0].objects == std::vector<std::string>{"t/w"});
  CHECK(report->tensors[0].role == "parameter");
}

TEST_CASE("a training state is left out, for a writer that has no place for it") {
  Fixture f;
  f.fake.add("exp_avg/v", DType::F32, {2, 1}, floats({5, 6}));
  manifest::Manifest& m = f.fake.manifest;
  m.tensors[2].role = manifest::Role::kOptimizerState;
  m.module = {{"w", 0}, {"v", 1}};
  m.training.step = 7;
  m.training.groups = {{{0, 1}, {}}};
  m.training.moments = {{"exp_avg", 1, 2}};
  f.request.target.renames = {"v=u"};
  REQUIRE(f.run());
  CHECK(FakeWriter::got.training == manifest::TrainingState());
  CHECK(FakeWriter::got.module.empty());
  CHECK(FakeWriter::got.tensors[2].excluded == "optimizer state, which the format does not have");
  CHECK(FakeWriter::got.tensors[2].target() == "exp_avg/v");
  CHECK(tree(f.out).contains("t/u"));
  CHECK(FakeWriter::got.tensors[1].excluded.empty());
  f.registry = plugin::Registry();
  f.registry.add("here", &kFakeReader);
  xd_plugin_desc takes_all = kFakeWriter;
  takes_all.caps |= XD_CAP_TRAINING_STATE;
  f.registry.add("here", &takes_all);
  f.request.overwrite = true;
  REQUIRE(f.run());
  CHECK(FakeWriter::got.training == m.training);
  CHECK(FakeWriter::got.module == std::vector<manifest::ModuleName>{{"w", 0}, {"u", 1}});
  CHECK(FakeWriter::got.tensors[2].excluded.empty());
  CHECK(FakeWriter::got.tensors[2].target() == "exp_avg/u");
}

TEST_CASE("a writer gets the text of config.json, and of other files their names") {
  Fixture f;
  put(f.dir / "src/config.json", "{ }");
  put(f.dir / "src/vocab.json", "{}");
  f.fake.manifest.aux_files = {
      {manifest::AuxKind::kConfig, "config.json", std::string("config.json")},
      {manifest::AuxKind::kTokenizer, "vocab.json", std::string("vocab.json")}};
  REQUIRE(f.run());
  REQUIRE(FakeWriter::got.aux_files.size() == 2);
  CHECK(std::get<manifest::Bytes>(FakeWriter::got.aux_files[0].content).data == "{ }");
  CHECK(std::get<std::string>(FakeWriter::got.aux_files[1].content) == "vocab.json");
}

TEST_CASE("what a writer has no place for is excluded with its reason") {
  Fixture f;
  f.fake.add("buf", DType::I64, {1}, std::string(8, 'b'));
  const auto outcome = f.run();
  REQUIRE(outcome);
  const auto report = report::from_json(outcome->report);
  REQUIRE(report);
  CHECK(report->tensors[2].excluded == "not a parameter");
  CHECK(report->tensors[2].role == "buffer");
  CHECK(report->tensors[2].objects.empty());
}

TEST_CASE("the output does not depend on threads or memory, and the budget holds") {
  Fixture f;
  for (int i = 0; i < 20; ++i)
    f.fake.add(cat("big", i), DType::F32, {50'000},
               std::string(200'000, static_cast<char>('a' + i)));
  REQUIRE(f.run());
  auto wanted = tree(f.out);
  wanted.erase("crossdock.json");  // holds timings
  for (const unsigned threads : {1u, 7u}) {
    f.request.threads = threads;
    f.request.memory = convert::kMinMemory;
    f.request.overwrite = true;
    REQUIRE(f.run());
    auto again = tree(f.out);
    again.erase("crossdock.json");
    CHECK(again == wanted);
  }
}

TEST_CASE("a dry run writes nothing, and says what would be") {
  Fixture f;
  f.request.dry_run = true;
  f.fake.add("steps", DType::I64, {1}, "12345678");
  const auto outcome = f.run();
  REQUIRE(outcome);
  CHECK(names(f.dir.path()) == std::vector<std::string>{"src"});
  const convert::PlanSummary& s = outcome->plan;
  CHECK(s.tensors == 3);
  CHECK(s.parameters == 2);
  CHECK(s.parameter_elems == 5);
  CHECK(s.excluded == 1);
  CHECK(s.buffers == 0);  // what is left out counts once
  CHECK(s.files == 3);    // with the report
  CHECK(s.apparent_bytes == 4 * 5 + 2 * 2);
  CHECK(s.source_bytes == 6 + 8 + 8);
  CHECK(outcome->forecast.free_bytes > 0);
  CHECK(outcome->forecast.free_memory > 0);
  CHECK(outcome->forecast.inodes == 3);  // t/w and t/v in their folder
  CHECK(s.notes == std::vector<std::string>{"a note of the writer"});
  CHECK(outcome->report.empty());
}

TEST_CASE("whatever call of the writer fails or throws, nothing is left") {
  Fixture f;
  for (const char* call : {"open", "plan", "write_item", "seal", "commit"}) {
    INFO(call);
    FakeWriter::hook = [&](const std::string& now) {
      return now == call ? Result<void>(corrupt(now + " failed")) : Result<void>();
    };
    CHECK(contains(f.refused(), cat(call, " failed")));
    FakeWriter::hook = [&](const std::string& now) -> Result<void> {
      if (now == call) throw std::runtime_error(now + " threw");
      return {};
    };
    CHECK(contains(f.refused(), cat(call, " threw")));
  }
}

TEST_CASE("an error in an item names its file") {
  Fixture f;
  FakeWriter::hook = [](const std::string& now) {
    return now == "seal" ? Result<void>(corrupt("bad")) : Result<void>();
  };
  const std::string text = f.refused();
  CHECK((text == "t/w: bad [org.example.writer.fake: seal]" ||
         text == "t/v: bad [org.example.writer.fake: seal]"));
}

TEST_CASE("a cancel at any call leaves nothing") {
  Fixture f;
  for (const char* call : {"open", "plan", "write_item", "seal", "commit"}) {
    INFO(call);
    f.cancelled = false;
    FakeWriter::hook = [&](const std::string& now) {
      if (now == call) f.cancelled = true;
      return Result<void>();
    };
    CHECK(f.refused() == "cancelled");
  }
}

TEST_CASE("a failure leaves the old DST as it was") {
  Fixture f;
  REQUIRE(f.run());
  f.request.overwrite = true;
  FakeWriter::hook = [](const std::string& now) {
    return now == "commit" ? Result<void>(corrupt("bad")) : Result<void>();
  };
  CHECK(f.refused() == "bad [org.example.writer.fake: commit]");
  FakeWriter::hook = nullptr;
  f.request.overwrite = false;
  CHECK(contains(f.refused(), "expected DST to be new or empty"));
}

TEST_CASE("a source that changes while it is read is an error") {
  Fixture f;
  f.request.threads = 1;
  FakeWriter::hook = [&](const std::string& now) {
    if (now == "seal") put(f.dir / "src/values", f.fake.values + "more");
    return Result<void>();
  };
  CHECK(contains(f.refused(),
                 "expected values to stay as it was, found it changed while it was read"));
}

TEST_CASE("an auxiliary file that changes size while it is copied is an error") {
  Fixture f;
  put(f.dir / "src/config.json", "{}");
  f.fake.manifest.aux_files.push_back(
      {manifest::AuxKind::kConfig, "config.json", std::string("config.json")});
  f.request.threads = 1;
  FakeWriter::hook = [&](const std::string& now) {
    if (now == "seal") put(f.dir / "src/config.json", "");
    return Result<void>();
  };
  CHECK(contains(f.refused(), "config.json: expected 2 bytes at offset 0, found the file's end"));
}

TEST_CASE("requests that cannot be are refused before anything is written") {
  Fixture f;
  SECTION("an unknown format") {
    f.request.to = "gguf";
    CHECK(f.refused() == "--to: expected one of fake, found gguf");
  }
  SECTION("too little memory") {
    f.request.memory = convert::kMinMemory - 1;
    CHECK(contains(f.refused(), "--memory: expected at least"));
  }
  SECTION("no source") {
    f.request.source = (f.dir / "none").string();
    CHECK(contains(f.refused(), "found nothing at"));
  }
  SECTION("DST inside SRC") {
    f.request.destination = (f.dir / "src/out").string();
    CHECK(contains(f.refused(), "expected DST outside SRC"));
  }
  SECTION("a model without tensors") {
    f.fake.manifest.tensors.clear();
    CHECK(contains(f.refused(), "expected a model, found no tensors in"));
  }
  SECTION("a quantised model") {
    f.fake.add("x.weight", DType::F8_E4M3, {1}, "q");
    CHECK(contains(f.refused(), "found tensor x.weight of type F8_E4M3"));
  }
  SECTION("names that meet") {
    f.request.target.renames = {".=x"};
    CHECK(contains(f.refused(), "expected different target names"));
  }
}

TEST_CASE("an item larger than the budget is refused with what to do") {
  Fixture f;
  f.request.memory = convert::kMinMemory;
  f.fake.add("huge", DType::F32, {5 << 20}, std::string(20 << 20, 'h'));
  CHECK(contains(f.refused(), "found t/huge to need"));
}

TEST_CASE("an embedding that the config ties is written once if both copies are equal") {
  Fixture f;
  f.fake = FakeModel()
               .add("embed_tokens.weight", DType::BF16, {2}, brains({1, 2}))
               .add("lm_head.weight", DType::BF16, {2}, brains({1, 2}));
  f.fake.manifest.source.config = {manifest::ValueMap{{{"tie_word_embeddings", {true}}}}};
  SECTION("equal") {
    const auto outcome = f.run();
    REQUIRE(outcome);
    CHECK(tree(f.out / "t").size() == 1);
    CHECK(contains(outcome->report,
                   "tied to embed_tokens.weight by its class and config.json, with equal values"));
    CHECK(outcome->plan.excluded == 1);
  }
  SECTION("different by one bit") {
    f.fake.values[3] = static_cast<char>(f.fake.values[3] ^ 1);
    const auto outcome = f.run();
    REQUIRE(outcome);
    CHECK(tree(f.out / "t").size() == 2);
    CHECK(contains(
        outcome->report,
        "The class and config.json tie lm_head.weight to embed_tokens.weight, but they differ"));
  }
  SECTION("not tied by the config") {
    f.fake.manifest.source.config = {};
    REQUIRE(f.run());
    CHECK(tree(f.out / "t").size() == 2);
  }
}

TEST_CASE("a writer that is not concurrent is called by one thread at a time") {
  static xd_plugin_desc desc = kFakeWriter;
  desc.caps = 0;
  desc.id = "org.example.writer.serial";
  Fixture f;
  for (int i = 0; i < 20; ++i) f.fake.add(cat("t", i), DType::F32, {1}, "1234");
  f.registry.add("here", &desc);
  f.request.to = "org.example.writer.serial";
  f.request.threads = 4;
  std::atomic<int> inside{0}, most{0};
  FakeWriter::hook = [&](const std::string&) -> Result<void> {
    const int now = ++inside;
    for (int old = most; old < now && !most.compare_exchange_weak(old, now);) {
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    --inside;
    return {};
  };
  REQUIRE(f.run());
  CHECK(most == 1);
}
