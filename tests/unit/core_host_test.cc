#include "core/plugin/host.h"

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
  io::Input input;
  xd_input handle{};

  Fixture() {
    put(dir / "a", "0123456789");
    put(dir / "b", "");
    input = *io::open_input(dir.path().string());
    handle.input = &input;
  }
};

}  // namespace

TEST_CASE("a plugin's message gets the places in front, each layer once") {
  Fixture f;
  const auto result = f.host.call([&](xd_error* err) {
    f.table.fail(f.table.ctx, err, XD_CORRUPT, nullptr, "read 3 bytes of 4");
    f.table.fail(f.table.ctx, err, XD_CORRUPT, "block 12", nullptr);
    return f.table.fail(f.table.ctx, err, XD_CORRUPT, "tensor \"w\"", nullptr);
  });
  CHECK(message(result) == "tensor \"w\": block 12: read 3 bytes of 4");
  CHECK(result.error().code == XD_CORRUPT);
  CHECK(f.table.fail(f.table.ctx, nullptr, XD_IO, "x", "y") == XD_IO);
}

TEST_CASE("a plugin that fails without a word is still an error with words") {
  Fixture f;
  CHECK(message(f.host.call([](xd_error*) { return XD_INTERNAL; })) ==
        "the plugin gave status 10 and no message");
  CHECK(message(f.host.call([](xd_error*) { return XD_CANCELLED; })) == "cancelled");
  CHECK(f.host.call([](xd_error*) { return XD_OK; }).has_value());
}

TEST_CASE("the input is a list of names and sizes") {
  Fixture f;
  CHECK(f.table.input_count(f.table.ctx, &f.handle) == 2);
  CHECK(std::string(f.table.input_name(f.table.ctx, &f.handle, 0)) == "a");
  CHECK(f.table.input_size(f.table.ctx, &f.handle, 0) == 10);
  CHECK(f.table.input_size(f.table.ctx, &f.handle, 1) == 0);
  CHECK(std::string(f.table.input_name(f.table.ctx, &f.handle, 2)).empty());
  CHECK(f.table.input_size(f.table.ctx, &f.handle, 2) == 0);
}

TEST_CASE("a source is opened once, and read within its bounds") {
  Fixture f;
  xd_source *first = nullptr, *second = nullptr;
  REQUIRE(f.table.source_open(f.table.ctx, &f.handle, "a", &first, nullptr) == XD_OK);
  REQUIRE(f.table.source_open(f.table.ctx, &f.handle, "a", &second, nullptr) == XD_OK);
  CHECK(first == second);
  CHECK(f.table.source_size(f.table.ctx, first) == 10);
  char text[4] = {};
  CHECK(f.table.source_read(f.table.ctx, first, 7, text, 3, nullptr) == XD_OK);
  CHECK(std::string(text) == "789");
  xd_error slot;
  CHECK(f.table.source_read(f.table.ctx, first, 8, text, 3, &slot) == XD_CORRUPT);
  CHECK(contains(slot.message, "a: expected 3 bytes at offset 8, found the file's end at 10"));
  CHECK(f.table.source_open(f.table.ctx, &f.handle, "none", &first, &slot) == XD_NOT_FOUND);
  CHECK(slot.message == "expected a file none in " + f.dir.path().string() + ", found none");
  CHECK(f.table.source_open(f.table.ctx, &f.handle, "../../etc/passwd", &first, &slot) ==
        XD_NOT_FOUND);
}

TEST_CASE("more files than may be open at once are read all the same") {
  Fixture f;
  constexpr size_t kFiles = plugin::Host::kMaxOpenFiles + 40;
  for (size_t i = 0; i < kFiles; ++i) put(f.dir / ("n" + std::to_string(i)), std::to_string(i));
  f.input = *io::open_input(f.dir.path().string());
  std::vector<xd_source*> sources(kFiles);
  for (size_t i = 0; i < kFiles; ++i) {
    const std::string name = "n" + std::to_string(i);
    REQUIRE(f.table.source_open(f.table.ctx, &f.handle, name.c_str(), &sources[i], nullptr) ==
            XD_OK);
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
      REQUIRE(f.table.source_read(f.table.ctx, sources[i], 0, text.data(), text.size(), nullptr) ==
              XD_OK);
      REQUIRE(text == expected);
    }
  }
  CHECK(n_open() < static_cast<ptrdiff_t>(plugin::Host::kMaxOpenFiles + 20));
  remove_all(f.dir / "n0");  // which is closed by now
  char c = 0;
  xd_error slot;
  CHECK(f.table.source_read(f.table.ctx, sources[0], 0, &c, 1, &slot) == XD_NOT_FOUND);
  CHECK(contains(slot.message, "n0: "));
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
        wrong += f.table.source_open(f.table.ctx, &f.handle, i % 2 ? "a" : "b", &source, nullptr) !=
                 XD_OK;
        if (i % 2)
          wrong += f.table.source_read(f.table.ctx, source, 5, &c, 1, nullptr) != XD_OK || c != '5';
        f.table.progress(f.table.ctx, 1);
        f.table.dealloc(f.table.ctx, f.table.alloc(f.table.ctx, 100, 64));
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
  xd_error slot;
  uint32_t object = 9;
  REQUIRE(f.table.plan_object(f.table.ctx, &plan, "a/b", 10, &object, &slot) == XD_OK);
  CHECK(object == 0);
  const xd_range range{XD_INIT_SIZE(xd_range), XD_FORM_DENSE, 1, 5, 6, 0, 0},
      bad{XD_INIT_SIZE(xd_range), XD_FORM_DENSE, 2, 0, 1, 0, 0};
  const xd_range* needs[] = {&range, nullptr};
  const xd_range* bad_needs[] = {&range, &bad, nullptr};
  REQUIRE(f.table.plan_item(f.table.ctx, &plan, 0, needs, 24, 32, &slot) == XD_OK);
  REQUIRE(f.table.plan_item(f.table.ctx, &plan, 0, needs, 24, 32, &slot) == XD_OK);
  REQUIRE(plan.plan.items.size() == 2);
  CHECK(plan.plan.items[1].number == 1);
  CHECK(plan.plan.items[1].needs[0].tensor == 1);
  CHECK(plan.plan.items[1].needs[0].begin == 5);
  CHECK(plan.plan.items[1].needs[0].count == 6);
  CHECK(plan.plan.objects[0].n_items == 2);
  CHECK(f.table.plan_item(f.table.ctx, &plan, 1, needs, 0, 0, &slot) == XD_OUT_OF_RANGE);
  CHECK(slot.message == "plan: an item of an object that is not planned");
  CHECK(f.table.plan_item(f.table.ctx, &plan, 0, bad_needs, 0, 0, &slot) == XD_OUT_OF_RANGE);
  CHECK(slot.message == "plan: an item of a tensor that does not exist");
  CHECK(plan.plan.objects[0].n_items == 2);  // a refused item takes no number
  CHECK(f.table.plan_exclude(f.table.ctx, &plan, 2, "x", &slot) == XD_OUT_OF_RANGE);
  CHECK(f.table.plan_exclude(f.table.ctx, &plan, 0, "why", &slot) == XD_OK);
  CHECK(f.table.plan_note(f.table.ctx, &plan, "note", &slot) == XD_OK);
  CHECK(f.table.plan_aux(f.table.ctx, &plan, "config.json", 3, &slot) == XD_OK);
  CHECK(plan.plan.excluded[0].second == "why");
  CHECK(plan.plan.notes[0] == "note");
  CHECK(plan.plan.aux[0].second == 3);
}

TEST_CASE("what is written counts as progress, and refusals reach the plugin") {
  Fixture f;
  const auto staging = *io::Staging::open(io::Os::real(), f.dir / "out", {});
  const auto staged = *staging->create(0, "f", 10);
  xd_object object{staged.get()};
  xd_error slot;
  CHECK(f.table.object_write(f.table.ctx, &object, 0, "abcd", 4, &slot) == XD_OK);
  CHECK(f.table.object_zero(f.table.ctx, &object, 4, 6, &slot) == XD_OK);
  CHECK(f.host.done_bytes() == 4);
  CHECK(f.table.object_write(f.table.ctx, &object, 0, "abcd", 4, &slot) == XD_INTERNAL);
  CHECK(contains(slot.message, "f: expected each byte to be written once"));
  CHECK(f.table.object_zero(f.table.ctx, &object, 9, 2, &slot) == XD_OUT_OF_RANGE);
  CHECK(f.host.done_bytes() == 4);
}

TEST_CASE("memory is the job's, and tensors are there in a conversion only") {
  Fixture f;
  CHECK(f.table.alloc(f.table.ctx, 2 << 20, 64) == nullptr);
  void* p = f.table.alloc(f.table.ctx, 1 << 20, 64);
  CHECK(p);
  CHECK(f.memory.peak() == 1 << 20);
  f.table.dealloc(f.table.ctx, p);
  xd_error slot;
  const xd_range range{XD_INIT_SIZE(xd_range), XD_FORM_DENSE, 0, 0, 1, 0, 0};
  xd_view view{XD_INIT_SIZE(xd_view), 0, nullptr, 0, nullptr, nullptr};
  CHECK(f.table.tensor_read(f.table.ctx, &range, nullptr, 0, &slot) == XD_UNIMPLEMENTED);
  CHECK(f.table.tensor_view(f.table.ctx, &range, &view, &slot) == XD_UNIMPLEMENTED);
}

TEST_CASE("no exception of ours crosses into a plugin") {
  Fixture f;
  f.host.tensor_read = [](const xd_range&, std::span<std::byte>) -> Result<void> {
    throw std::runtime_error("boom");
  };
  f.host.tensor_view = [](const xd_range&, xd_view*, xd_error*) -> xd_status {
    throw std::bad_alloc();
  };
  xd_error slot;
  const xd_range range{XD_INIT_SIZE(xd_range), XD_FORM_DENSE, 0, 0, 1, 0, 0};
  CHECK(f.table.tensor_read(f.table.ctx, &range, nullptr, 0, &slot) == XD_INTERNAL);
  CHECK(slot.message == "boom");
  CHECK(f.table.tensor_view(f.table.ctx, &range, nullptr, &slot) == XD_NO_MEMORY);
  f.host.log = [](int32_t, const std::string&) { throw std::runtime_error("boom"); };
  f.table.log(f.table.ctx, XD_LOG_WARN, "text");  // a lost log line is no reason to end the process
}

TEST_CASE("a cancel is seen by plugins, and logs are passed on") {
  Fixture f;
  CHECK(f.table.cancelled(f.table.ctx) == 0);
  f.cancelled = true;
  CHECK(f.table.cancelled(f.table.ctx) == 1);
  std::string logged;
  f.table.log(f.table.ctx, XD_LOG_WARN, "before anybody listens");
  f.host.log = [&](int32_t level, const std::string& text) { logged = cat(level, text); };
  f.table.log(f.table.ctx, XD_LOG_WARN, "hello");
  f.table.log(f.table.ctx, XD_LOG_WARN, nullptr);
  CHECK(logged == "2hello");
  CHECK(f.table.get_extension(f.table.ctx, "any") == nullptr);
}
