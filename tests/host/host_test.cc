// SPDX-License-Identifier: Apache-2.0

// crossdock/host.h: what a caller in C may rely on beside the conversion itself, which
// tests/install makes with the example.
#include "tests/catch.h"

#include <crossdock/host.h>

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

namespace {

namespace fs = std::filesystem;

struct Folder {
  fs::path path;
  Folder() {
    std::string name = (fs::temp_directory_path() / "crossdock-host-XXXXXX").string();
    REQUIRE(mkdtemp(name.data()) != nullptr);
    path = name;
  }
  ~Folder() { fs::remove_all(path); }
};

struct Seen {
  std::atomic<int> progress{0}, logs{0}, asked{0};
  std::string phases;
};

crossdock_call call_with(const std::vector<crossdock_option>& options, Seen& seen) {
  crossdock_call call{};
  call.struct_size = sizeof call;
  call.options = options.data();
  call.n_options = static_cast<uint32_t>(options.size());
  call.user = &seen;
  call.progress = [](void* user, uint64_t, uint64_t) { ++static_cast<Seen*>(user)->progress; };
  call.phase = [](void* user, const char* phase) {
    static_cast<Seen*>(user)->phases += std::string(phase) + " ";
  };
  call.log = [](void* user, int32_t, const char*) { ++static_cast<Seen*>(user)->logs; };
  return call;
}

struct Answer {
  crossdock_status status;
  std::string text;
};

template <class Function, class... Paths>
Answer ask(Function function, const crossdock_call* call, Paths... paths) {
  char* text = nullptr;
  const crossdock_status status = function(paths..., call, &text);
  Answer out{status, text ? text : "(null)"};
  crossdock_free(text);
  return out;
}

bool has(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

const std::vector<crossdock_option> kUniversal{
    {"to", "universal"}, {"threads", "2"}, {"no-sync", nullptr}, {"verify", nullptr}};

}  // namespace

TEST_CASE("convert tells of its phases, and gives the report that it wrote") {
  const Folder dir;
  const std::string out = dir.path / "out";
  Seen seen;
  const crossdock_call call = call_with(kUniversal, seen);
  const Answer made = ask(crossdock_convert, &call, TINY_LLAMA, out.c_str());
  INFO(made.text);
  REQUIRE(made.status == CROSSDOCK_DONE);
  std::ifstream report(dir.path / "out/crossdock.json");
  CHECK(made.text == std::string(std::istreambuf_iterator<char>(report), {}));
  CHECK(seen.progress > 0);
  CHECK(has(seen.phases, "write"));
  CHECK(has(seen.phases, "verify"));
}

TEST_CASE("a cancelled call ends, and leaves nothing") {
  const Folder dir;
  const std::string out = dir.path / "out";
  Seen seen;
  crossdock_call call = call_with(kUniversal, seen);
  call.is_cancelled = [](void* user) { return ++static_cast<Seen*>(user)->asked; };
  // The answer is asked for on another thread: hold this one until it came.
  call.phase = [](void* user, const char*) {
    while (static_cast<Seen*>(user)->asked == 0) std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  };
  CHECK(ask(crossdock_convert, &call, TINY_LLAMA, out.c_str()).status == CROSSDOCK_CANCELLED);
  CHECK(seen.asked == 1);
  CHECK(fs::is_empty(dir.path));
}

TEST_CASE("wrong use is told before anything begins") {
  const Folder dir;
  const std::string out = dir.path / "out";
  Seen seen;
  const auto of = [&](const std::vector<crossdock_option>& options,
                      const char* source = TINY_LLAMA) {
    const crossdock_call call = call_with(options, seen);
    return ask(crossdock_convert, &call, source, out.c_str());
  };
  for (const auto& [options, said] :
       std::vector<std::pair<std::vector<crossdock_option>, const char*>>{
           {{}, "expected --to FORMAT"},
           {{{"to", "nonsense"}}, "--to"},
           {{{"to", "universal"}, {"progress", "bar"}}, "the command's own"},
           {{{"to", "universal"}, {"--threads", "2"}}, "option's name"},
           {{{"to", "universal"}, {nullptr, "2"}}, "option's name"},
           {{{"to", "universal"}, {"threads", "many"}}, "threads"},
           {{{"to", "universal"}, {"lr", "1"}}, "lr"}}) {
    const Answer answer = of(options);
    CHECK(answer.status == CROSSDOCK_USAGE);
    INFO(answer.text);
    CHECK(has(answer.text, said));
  }
  CHECK(of(kUniversal, nullptr).status == CROSSDOCK_USAGE);
  CHECK(ask(crossdock_convert, nullptr, TINY_LLAMA, out.c_str()).status == CROSSDOCK_USAGE);
  CHECK(fs::is_empty(dir.path));
}

TEST_CASE("a caller of an older header gives a shorter struct, whose rest is not read") {
  const Folder dir;
  Seen seen;
  crossdock_call call = call_with({}, seen);
  call.struct_size = offsetof(crossdock_call, progress);
  CHECK(ask(crossdock_inspect, &call, TINY_LLAMA).status == CROSSDOCK_DONE);
  CHECK(ask(crossdock_inspect, nullptr, TINY_LLAMA).status == CROSSDOCK_DONE);
  CHECK(crossdock_inspect(TINY_LLAMA, nullptr, nullptr) == CROSSDOCK_DONE);
  const Answer nowhere = ask(crossdock_inspect, &call, (dir.path / "none").c_str());
  CHECK(nowhere.status == CROSSDOCK_FAILED);
  CHECK(has(nowhere.text, "none"));
}

TEST_CASE("verify finds damage, and tells it from what cannot be looked at") {
  const Folder dir;
  const std::string out = dir.path / "out";
  Seen seen;
  const crossdock_call call = call_with(kUniversal, seen);
  REQUIRE(ask(crossdock_convert, &call, TINY_LLAMA, out.c_str()).status == CROSSDOCK_DONE);
  const std::vector<crossdock_option> against{{"against", TINY_LLAMA}};
  const crossdock_call compare = call_with(against, seen);
  const Answer good = ask(crossdock_verify, &compare, out.c_str());
  INFO(good.text);
  CHECK(good.status == CROSSDOCK_DONE);
  CHECK(has(good.text, "\"good\": true"));
  std::ofstream(dir.path / "out/latest_universal", std::ios::app) << "x";
  const Answer bad = ask(crossdock_verify, nullptr, out.c_str());
  CHECK(bad.status == CROSSDOCK_DAMAGED);
  CHECK(has(bad.text, "latest_universal"));
  CHECK(ask(crossdock_verify, nullptr, dir.path.c_str()).status == CROSSDOCK_FAILED);
}

TEST_CASE("calls run at once") {
  const Folder dir;
  std::vector<std::thread> threads;
  std::atomic<int> done{0};
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      Seen seen;
      const crossdock_call call = call_with(kUniversal, seen);
      const std::string out = dir.path / std::to_string(i);
      if (ask(crossdock_convert, &call, TINY_LLAMA, out.c_str()).status == CROSSDOCK_DONE) ++done;
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(done == 4);
}
