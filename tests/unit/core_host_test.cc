// SPDX-License-Identifier: Apache-2.0
#include "core/plugin/host.h"

#include <crossdock/plugin.hpp>

#include <cfenv>
#include <thread>

#include "tests/unit/core_test_support.h"

using namespace crossdock;
using namespace crossdock::test;

namespace {

struct Fixture {
  TempDir dir;
  std::atomic<bool> cancelled{false};
  base::Memory memory{1 << 20};
  plugin::Host host{io::Os::real(), memory, cancelled};
  const xd_host& table = *host.table();
  const plugin::CallSpec spec{.plugin = "org.example.x", .function = "read", .instance = this};
  plugin::Call call{host.table(), host, spec};
  io::Input input;
  xd_input handle{};

  Fixture() {
    put(dir / "a", "0123456789");
    put(dir / "b", "");
    input = *io::open_input(dir.path().string());
    handle.input = &input;
  }
  // What the last host call that failed left.
  std::string said() const { return call.error ? call.error->message : ""; }
  xd_status fail(xd_call* c, xd_status code, const char* where, const char* message) const {
    const xd_failure failure{XD_INIT_SIZE(xd_failure), code, where, message};
    return table.fail(c, &failure);
  }
};

}  // namespace

TEST_CASE("a plugin's message gets the places in front, each layer once, and whose it is") {
  Fixture f;
  const auto result = f.host.call(f.spec, [&](xd_call* c) {
    f.fail(c, XD_CORRUPT, nullptr, "read 3 bytes of 4");
    f.fail(c, XD_CORRUPT, "block 12", nullptr);
    return f.fail(c, XD_CORRUPT, "tensor \"w\"", nullptr);
  });
  CHECK(message(result) == "tensor \"w\": block 12: read 3 bytes of 4 [org.example.x: read]");
  CHECK(result.error().code == XD_CORRUPT);
}

TEST_CASE("a plugin that fails without a word is still an error with words") {
  Fixture f;
  CHECK(message(f.host.call(f.spec, [](xd_call*) { return XD_INTERNAL; })) ==
        "the plugin gave status 10 and no message [org.example.x: read]");
  CHECK(contains(message(f.host.call(f.spec, [](xd_call*) { return XD_CANCELLED; })),
                 "it gave XD_CANCELLED, and nobody has cancelled"));
  f.cancelled = true;
  CHECK(message(f.host.call(f.spec, [](xd_call*) { return XD_CANCELLED; })) == "cancelled");
  CHECK(contains(message(f.host.call(f.spec, [](xd_call*) { return 4711; })),
                 "(status 4711, which is none) [org.example.x: read]"));
  CHECK(contains(message(f.host.call(f.spec, [](xd_call*) { return -1; })), "status -1"));
  CHECK(f.host.call(f.spec, [](xd_call*) { return XD_OK; }).has_value());
}

TEST_CASE("a plugin that failed, or read what could not be read, cannot say that all is well") {
  Fixture f;
  const auto said_well = [&](xd_call* c) {
    f.fail(c, XD_CORRUPT, nullptr, "bad values");
    return XD_OK;
  };
  CHECK(contains(message(f.host.call(f.spec, said_well)),
                 "it said that all was well after a failure: bad values [org.example.x: read]"));
  const auto misses = [&](xd_call* c) {
    xd_source* source = nullptr;
    (void)f.table.source_open(c, &f.handle, "none", &source);
    return XD_OK;
  };
  CHECK(contains(message(f.host.call(f.spec, misses)), "all was well after a failure"));
  plugin::CallSpec open = f.spec;
  open.function = "open";
  CHECK(f.host.call(open, misses).has_value());  // it may look for a file that is not there
}

TEST_CASE("a plugin cannot change how our numbers are computed") {
  Fixture f;
  const volatile float third = 3;
  const float before = 1 / third;
  REQUIRE(f.host.call(f.spec, [](xd_call*) { return std::fesetround(FE_UPWARD), XD_OK; }));
  CHECK(std::fegetround() == FE_TONEAREST);
  CHECK(1 / third == before);
}

TEST_CASE("what a plugin throws is an error of that plugin's") {
  Fixture f;
  CHECK(message(f.host.call(f.spec, [](xd_call*) -> xd_status {
          throw std::runtime_error("boom");
        })) == "it threw an exception, which must not leave a plugin: boom [org.example.x: read]");
  CHECK(contains(message(f.host.call(f.spec, [](xd_call*) -> xd_status { throw 42; })),
                 "it threw something that is no exception"));
}

TEST_CASE("calls within calls end, and the innermost is to blame") {
  Fixture f;
  const plugin::CallSpec outer{.plugin = "org.example.w", .function = "write_item"};
  const auto failed = f.host.call(outer, [&](xd_call* c) {
    const auto inner = f.host.call(
        f.spec, [&](xd_call* d) { return f.fail(d, XD_CORRUPT, nullptr, "bad values"); });
    return static_cast<plugin::Call*>(c)->keep(inner.error());
  });
  CHECK(message(failed) == "bad values [org.example.x: read]");
  int depth = 0;
  const std::function<xd_status(xd_call*)> again = [&](xd_call* c) {
    ++depth;
    const auto inner = f.host.call(f.spec, again);
    return inner ? XD_OK : static_cast<plugin::Call*>(c)->keep(inner.error());
  };
  CHECK(contains(message(f.host.call(f.spec, again)), "found ones within ones [org.example.x"));
  CHECK(depth < 20);
}

TEST_CASE("messages that never end or are no text are cut and escaped") {
  Fixture f;
  const std::string endless(1 << 20, 'x');
  f.fail(&f.call, XD_CORRUPT, nullptr, endless.c_str());
  CHECK(f.said().size() <= XD_MAX_MESSAGE_BYTES + 4);
  CHECK(f.said().ends_with("x ..."));
  for (int i = 0; i < 100; ++i) f.fail(&f.call, XD_CORRUPT, endless.c_str(), nullptr);
  CHECK(f.said().size() < 8 * XD_MAX_MESSAGE_BYTES);
  f.fail(&f.call, XD_CORRUPT, nullptr, "caf\xe9 \xff");
  CHECK(f.said() == "caf\\xe9 \\xff");
}

TEST_CASE("memory belongs to the call or to the reader that asked for it") {
  Fixture f;
  std::string warned;
  const plugin::CallSpec item{.plugin = "org.example.w",
                              .function = "write_item",
                              .instance = &warned,
                              .frees_all = true,
                              .memory = 1000};
  f.host.log = [&](int32_t level, const std::string& text) { warned = cat(level, " ", text); };
  void* kept = nullptr;
  REQUIRE(f.host.call(item, [&](xd_call* c) {
    CHECK(f.table.alloc(c, 1001, 64) == nullptr);
    CHECK(f.table.alloc(c, 100, 48) == nullptr);
    kept = f.table.alloc(c, 600, 64);
    CHECK(kept);
    CHECK(f.table.alloc(c, 600, 64) == nullptr);
    return XD_OK;
  }));
  CHECK(warned == "3 it did not give back 1 buffers [org.example.w: write_item]");
  const auto stale = f.host.call(item, [&](xd_call* c) { return f.table.dealloc(c, kept), XD_OK; });
  CHECK(contains(message(stale), "it gave back memory that is not its own, or gave it back twice"));
  // Between two calls another item may have got the same bytes: they stay its own.
  const auto twice = f.host.call(item, [&](xd_call* c) {
    void* p = f.table.alloc(c, 600, 64);
    f.table.dealloc(c, p);
    void* const others = f.table.alloc(&f.call, 600, 64);
    CHECK(others == p);
    f.table.dealloc(c, p);
    f.table.dealloc(&f.call, others);
    return XD_OK;
  });
  CHECK(contains(message(twice), "gave it back twice [org.example.w: write_item]"));
  CHECK_FALSE(f.call.broken);
}

TEST_CASE("what a plugin hands the host is looked at first") {
  Fixture f;
  xd_plan plan;
  xd_range small = dense_range(0, 0, 1);
  small.struct_size = 8;
  const xd_range* needs[] = {&small, nullptr};
  const xd_item_desc without{XD_INIT_SIZE(xd_item_desc), 0, nullptr, 0, 0};
  const xd_item_desc with{XD_INIT_SIZE(xd_item_desc), 0, needs, 0, 0};
  const xd_object_desc nameless{XD_INIT_SIZE(xd_object_desc), 0, nullptr, 1};
  const xd_object_desc odd{XD_INIT_SIZE(xd_object_desc), 1u << 20, "a", 1};
  const xd_object_desc fine{XD_INIT_SIZE(xd_object_desc), 0, "a", 1};
  uint32_t object = 0;
  CHECK(f.table.plan_object(&f.call, &plan, &nameless, &object) == XD_INVALID_ARGUMENT);
  CHECK(f.table.plan_object(&f.call, &plan, nullptr, &object) == XD_INVALID_ARGUMENT);
  CHECK(f.table.plan_object(&f.call, &plan, &odd, &object) == XD_UNIMPLEMENTED);
  REQUIRE(f.table.plan_object(&f.call, &plan, &fine, &object) == XD_OK);
  CHECK(f.table.plan_item(&f.call, &plan, &without) == XD_INVALID_ARGUMENT);
  CHECK(f.table.plan_item(&f.call, &plan, &with) == XD_INVALID_ARGUMENT);
  CHECK(contains(f.said(), "the plugin's mistake: a need that is too short"));
  CHECK(f.table.plan_aux(&f.call, &plan, nullptr, 0) == XD_INVALID_ARGUMENT);
  CHECK(f.table.plan_note(&f.call, &plan, nullptr) == XD_INVALID_ARGUMENT);
  CHECK(f.table.source_open(&f.call, nullptr, "a", nullptr) == XD_INVALID_ARGUMENT);
  CHECK(f.table.source_read(&f.call, nullptr, 0, nullptr, 1) == XD_INVALID_ARGUMENT);
  CHECK(f.table.tensor_read(&f.call, &small, nullptr, 0) == XD_INVALID_ARGUMENT);
  CHECK(f.table.object_write(&f.call, nullptr, 0, "x", 1) == XD_INVALID_ARGUMENT);
  CHECK(f.table.object_zero(&f.call, nullptr, 0, 1) == XD_INVALID_ARGUMENT);
  CHECK(f.table.bytes_append(&f.call, nullptr, "x", 1) == XD_INVALID_ARGUMENT);
  CHECK(f.table.fail(&f.call, nullptr) == XD_INVALID_ARGUMENT);
  xd_bytes bytes{.data = {}, .limit = 4};
  CHECK(f.table.bytes_append(&f.call, &bytes, "1234", 4) == XD_OK);
  CHECK(f.table.bytes_append(&f.call, &bytes, "5", 1) == XD_OUT_OF_RANGE);
}

TEST_CASE("several reads at once give what single ones give") {
  Fixture f;
  const auto* many =
      static_cast<const xd_read_many*>(f.table.get_extension(&f.call, XD_EXT_READ_MANY));
  REQUIRE(many);
  CHECK(f.table.get_extension(&f.call, "crossdock.read_many/2") == nullptr);
  xd_source* source = nullptr;
  REQUIRE(f.table.source_open(&f.call, &f.handle, "a", &source) == XD_OK);
  char text[40] = {};
  std::vector<xd_source_range> ranges;
  for (uint64_t i = 0; i < 40; ++i)
    ranges.push_back({XD_INIT_SIZE(xd_source_range), 0, source, i % 10, &text[i], 1});
  std::vector<const xd_source_range*> list;
  for (const auto& range : ranges) list.push_back(&range);
  list.push_back(nullptr);
  REQUIRE(many->read(&f.call, list.data()) == XD_OK);
  CHECK(std::string(text, 40) == "0123456789012345678901234567890123456789");
  ranges[17].offset = 10;
  CHECK(many->read(&f.call, list.data()) == XD_CORRUPT);
  CHECK(contains(f.said(), "a: expected 1 bytes at offset 10"));
  ranges[17].struct_size = 3;
  CHECK(many->read(&f.call, list.data()) == XD_INVALID_ARGUMENT);
}

TEST_CASE("the input is a list of names and sizes") {
  Fixture f;
  CHECK(f.table.input_count(&f.call, &f.handle) == 2);
  xd_input_entry entry{XD_INIT_SIZE(xd_input_entry), 0, nullptr, 0};
  REQUIRE(f.table.input_entry(&f.call, &f.handle, 0, &entry) == XD_OK);
  CHECK(std::string(entry.name) == "a");
  CHECK(entry.size == 10);
  REQUIRE(f.table.input_entry(&f.call, &f.handle, 1, &entry) == XD_OK);
  CHECK(entry.size == 0);
  CHECK(f.table.input_entry(&f.call, &f.handle, 2, &entry) == XD_OUT_OF_RANGE);
}

TEST_CASE("a source is opened once, and read within its bounds") {
  Fixture f;
  xd_source *first = nullptr, *second = nullptr;
  REQUIRE(f.table.source_open(&f.call, &f.handle, "a", &first) == XD_OK);
  REQUIRE(f.table.source_open(&f.call, &f.handle, "a", &second) == XD_OK);
  CHECK(first == second);
  CHECK(f.table.source_size(&f.call, first) == 10);
  char text[4] = {};
  CHECK(f.table.source_read(&f.call, first, 7, text, 3) == XD_OK);
  CHECK(std::string(text) == "789");
  CHECK(f.table.source_read(&f.call, first, 8, text, 3) == XD_CORRUPT);
  CHECK(contains(f.said(), "a: expected 3 bytes at offset 8, found the file's end at 10"));
  CHECK(f.table.source_open(&f.call, &f.handle, "none", &first) == XD_NOT_FOUND);
  CHECK(f.said() == "expected a file none in " + f.dir.path().string() + ", found none");
  CHECK(f.table.source_open(&f.call, &f.handle, "../../etc/passwd", &first) == XD_NOT_FOUND);
}

TEST_CASE("more files than may be open at once are read all the same") {
  Fixture f;
  constexpr size_t kFiles = plugin::Host::kMaxOpenFiles + 40;
  for (size_t i = 0; i < kFiles; ++i) put(f.dir / ("n" + std::to_string(i)), std::to_string(i));
  f.input = *io::open_input(f.dir.path().string());
  std::vector<xd_source*> sources(kFiles);
  for (size_t i = 0; i < kFiles; ++i) {
    const std::string name = "n" + std::to_string(i);
    REQUIRE(f.table.source_open(&f.call, &f.handle, name.c_str(), &sources[i]) == XD_OK);
  }
  const auto n_open = [] {
    namespace fs = boost::filesystem;
    return std::distance(fs::directory_iterator("/proc/self/fd"), fs::directory_iterator());
  };
  CHECK(n_open() < static_cast<ptrdiff_t>(plugin::Host::kMaxOpenFiles + 20));
  for (const int round : {1, 2}) {
    CAPTURE(round);
    for (size_t i = 0; i < kFiles; ++i) {
      const std::string expected = std::to_string(i);
      std::string text(expected.size(), ' ');
      REQUIRE(f.table.source_read(&f.call, sources[i], 0, text.data(), text.size()) == XD_OK);
      REQUIRE(text == expected);
    }
  }
  CHECK(n_open() < static_cast<ptrdiff_t>(plugin::Host::kMaxOpenFiles + 20));
  remove_all(f.dir / "n0");  // which is closed by now
  char c = 0;
  CHECK(f.table.source_read(&f.call, sources[0], 0, &c, 1) == XD_NOT_FOUND);
  CHECK(contains(f.said(), "n0: "));
}

TEST_CASE("threads may open and read sources at the same time") {
  Fixture f;
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 100; ++i) {
        xd_source* source = nullptr;
        char c = 0;
        wrong += f.table.source_open(&f.call, &f.handle, i % 2 ? "a" : "b", &source) != XD_OK;
        if (i % 2) wrong += f.table.source_read(&f.call, source, 5, &c, 1) != XD_OK || c != '5';
        f.table.progress(&f.call, 1);
        f.table.dealloc(&f.call, f.table.alloc(&f.call, 100, 64));
      }
    });
  }
  for (auto& t : threads) t.join();
  CHECK(wrong == 0);
  CHECK(f.host.done_bytes() == 400);
}

TEST_CASE("a plan is gathered; what refers to nothing is refused") {
  Fixture f;
  xd_plan plan;
  plan.n_tensors = 2;
  uint32_t object = 9;
  const xd_object_desc desc{XD_INIT_SIZE(xd_object_desc), 0, "a/b", 10};
  REQUIRE(f.table.plan_object(&f.call, &plan, &desc, &object) == XD_OK);
  CHECK(object == 0);
  const xd_range range = dense_range(1, 5, 6), bad = dense_range(2, 0, 1);
  const xd_range* needs[] = {&range, nullptr};
  const xd_range* bad_needs[] = {&range, &bad, nullptr};
  const xd_item_desc item{XD_INIT_SIZE(xd_item_desc), 0, needs, 24, 32};
  const xd_item_desc of_none{XD_INIT_SIZE(xd_item_desc), 1, needs, 0, 0};
  const xd_item_desc of_bad{XD_INIT_SIZE(xd_item_desc), 0, bad_needs, 0, 0};
  REQUIRE(f.table.plan_item(&f.call, &plan, &item) == XD_OK);
  REQUIRE(f.table.plan_item(&f.call, &plan, &item) == XD_OK);
  REQUIRE(plan.plan.items.size() == 2);
  CHECK(plan.plan.items[1].number == 1);
  CHECK(plan.plan.items[1].needs[0].tensor == 1);
  CHECK(plan.plan.items[1].needs[0].begin == 5);
  CHECK(plan.plan.items[1].needs[0].count == 6);
  CHECK(plan.plan.objects[0].n_items == 2);
  CHECK(f.table.plan_item(&f.call, &plan, &of_none) == XD_OUT_OF_RANGE);
  CHECK(f.said() == "plan: an item of an object that is not planned");
  CHECK(f.table.plan_item(&f.call, &plan, &of_bad) == XD_OUT_OF_RANGE);
  CHECK(f.said() == "plan: an item of a tensor that does not exist");
  CHECK(plan.plan.objects[0].n_items == 2);  // a refused item takes no number
  CHECK(f.table.plan_exclude(&f.call, &plan, 2, "x") == XD_OUT_OF_RANGE);
  CHECK(f.table.plan_exclude(&f.call, &plan, 0, "why") == XD_OK);
  CHECK(f.table.plan_note(&f.call, &plan, "note") == XD_OK);
  CHECK(f.table.plan_aux(&f.call, &plan, "config.json", 3) == XD_OK);
  CHECK(plan.plan.excluded[0].second == "why");
  CHECK(plan.plan.notes[0] == "note");
  CHECK(plan.plan.aux[0].second == 3);
}

TEST_CASE("what is written counts as progress, and refusals reach the plugin") {
  Fixture f;
  const auto staging = *io::Staging::open(io::Os::real(), f.dir / "out", {});
  const auto staged = *staging->create(0, "f", 10);
  xd_object object{staged.get()};
  CHECK(f.table.object_write(&f.call, &object, 0, "abcd", 4) == XD_OK);
  CHECK(f.table.object_zero(&f.call, &object, 4, 6) == XD_OK);
  CHECK(f.host.done_bytes() == 4);
  CHECK(f.table.object_write(&f.call, &object, 0, "abcd", 4) == XD_INTERNAL);
  CHECK(contains(f.said(), "f: expected each byte to be written once"));
  CHECK(f.table.object_zero(&f.call, &object, 9, 2) == XD_OUT_OF_RANGE);
  CHECK(f.host.done_bytes() == 4);
}

TEST_CASE("memory is the job's, and tensors are there in an item only") {
  Fixture f;
  CHECK(f.table.alloc(&f.call, 2 << 20, 64) == nullptr);
  void* p = f.table.alloc(&f.call, 1 << 20, 64);
  CHECK(p);
  CHECK(f.memory.peak() == 1 << 20);
  f.table.dealloc(&f.call, p);
  CHECK_FALSE(f.call.broken);
  const xd_range range = dense_range(0, 0, 1);
  std::byte b{};
  CHECK(f.table.tensor_read(&f.call, &range, &b, 1) == XD_UNIMPLEMENTED);
}

TEST_CASE("no exception of ours crosses into a plugin") {
  Fixture f;
  struct Throws : plugin::TensorReads {
    Result<void> read(const xd_range&, std::span<std::byte>) override {
      throw std::runtime_error("boom");
    }
  } tensors;
  plugin::CallSpec spec = f.spec;
  spec.tensors = &tensors;
  plugin::Call call{f.host.table(), f.host, spec};
  const xd_range range = dense_range(0, 0, 1);
  CHECK(f.table.tensor_read(&call, &range, nullptr, 0) == XD_INTERNAL);
  CHECK(call.error->message == "boom");
  f.host.log = [](int32_t, const std::string&) { throw std::runtime_error("boom"); };
  f.table.log(&f.call, XD_LOG_WARN, "text");  // a lost log line is no reason to end the process
}

TEST_CASE("a cancel is seen by plugins, and logs are passed on") {
  Fixture f;
  CHECK(f.table.cancelled(&f.call) == 0);
  f.cancelled = true;
  CHECK(f.table.cancelled(&f.call) == 1);
  std::string logged;
  f.table.log(&f.call, XD_LOG_WARN, "before anybody listens");
  f.host.log = [&](int32_t level, const std::string& text) { logged = cat(level, text); };
  f.table.log(&f.call, XD_LOG_WARN, "hello");
  f.table.log(&f.call, XD_LOG_WARN, nullptr);
  CHECK(logged == "2hello");
  CHECK(f.table.get_extension(&f.call, "any") == nullptr);
}
