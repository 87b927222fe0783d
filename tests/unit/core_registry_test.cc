// SPDX-License-Identifier: Apache-2.0

// What a module may get wrong, and what the host says to it, is shown with real modules in
// tests/abi.
#include "core/plugin/registry.h"

#include <cstdlib>

#include "tests/unit/core_fake_plugins.h"

using namespace crossdock;
using namespace crossdock::test;
using plugin::Registry;

TEST_CASE("plugins are found by id, by format and by revision, each kind by itself") {
  Registry registry;
  CHECK(registry.formats(XD_READER) == "none");
  registry.add("here", &kFakeReader);
  registry.add("here", &kFakeWriter);
  REQUIRE(registry.plugins().size() == 2);
  CHECK(registry.refusals().empty());
  for (const char* name : {"fake", "fake/1", "org.example.reader.fake"}) {
    INFO(name);
    REQUIRE(registry.find_reader(name));
    CHECK(registry.find_reader(name)->id() == "org.example.reader.fake");
  }
  CHECK(registry.find_writer("fake")->id() == "org.example.writer.fake");
  CHECK(registry.find_writer("org.example.reader.fake") == nullptr);
  CHECK(registry.find_reader("fak") == nullptr);
  CHECK(registry.formats(XD_WRITER) == "fake");
}

TEST_CASE("the first plugin with an id stays, a second is told so") {
  Registry registry;
  registry.add("first/a.xd.so", &kFakeReader);
  registry.add("second/a.xd.so", &kFakeReader);
  CHECK(registry.plugins().size() == 1);
  REQUIRE(registry.refusals().size() == 1);
  CHECK(registry.refusals()[0].path == "second/a.xd.so");
  CHECK(registry.refusals()[0].reason ==
        "org.example.reader.fake was already loaded from first/a.xd.so");
}

TEST_CASE("a plugin of an older minor may have shorter structs, and a newer one longer ones") {
  struct Newer {
    xd_plugin_desc desc;
    void* more;
  };
  Newer newer{kFakeReader, nullptr};
  newer.desc.struct_size = sizeof(Newer);
  xd_plugin_desc older = kFakeWriter;
  older.struct_size = offsetof(xd_plugin_desc, reader);  // before it could be told apart
  Registry registry;
  registry.add("newer", &newer.desc);
  registry.add("older", &older);
  CHECK(registry.plugins().size() == 1);
  REQUIRE(registry.refusals().size() == 1);
  CHECK(registry.refusals()[0].reason == "a writer that does not have just a writer's table");
}

TEST_CASE("an option that could not be a flag beside the others is refused") {
  xd_option_desc option{};
  option.struct_size = sizeof option;
  option.name = "depth", option.type = "int", option.fallback = "1", option.help = "how deep";
  const xd_option_desc* const options[] = {&option, nullptr};
  xd_plugin_desc reader = kFakeReader, writer = kFakeWriter;
  reader.options = options;
  SECTION("crossdock's own") {
    Registry registry({"memory", "depth"});
    registry.add("here", &reader);
    REQUIRE(registry.refusals().size() == 1);
    CHECK(registry.refusals()[0].reason == "its option --depth is one of crossdock's own");
  }
  SECTION("not spelt as a flag") {
    option.name = "depth,d";
    Registry registry;
    registry.add("here", &reader);
    REQUIRE(registry.refusals().size() == 1);
    CHECK(registry.refusals()[0].reason == "an option whose name is not of a-z, 0-9 and -");
  }
  SECTION(
      "another reader's, of another type; of the same type it is fine, and two writers are never "
      "asked for at once") {
    xd_option_desc other = option;
    const xd_option_desc* const others[] = {&other, nullptr};
    writer.options = others;
    xd_plugin_desc second = writer;
    second.id = "org.example.writer.second";
    second.options = options;
    Registry registry;
    registry.add("here", &reader);
    registry.add("here", &writer);
    CHECK(registry.refusals().empty());
    other.type = "bool", other.fallback = "true";
    Registry strict;
    strict.add("here", &reader);
    strict.add("here", &writer);
    REQUIRE(strict.refusals().size() == 1);
    CHECK(strict.refusals()[0].reason ==
          "its option --depth is of the type bool, but int in org.example.reader.fake");
    Registry writers;
    writers.add("here", &writer);
    writers.add("here", &second);
    CHECK(writers.refusals().empty());
  }
}

TEST_CASE(
    "only modules are looked at, and a module that is none is refused with the loader's reason") {
  const TempDir dir;
  put(dir / "a/broken.xd.so", std::string(4096, 'x'));
  put(dir / "a/libother.so", "not ELF");
  put(dir / "a/.xd.so", "not ELF");
  put(dir / "b/another.xd.so", "not ELF");
  fs::create_symlink("a", dir / "again");
  const std::atomic<bool> never{false};
  base::Memory memory(1 << 20);
  plugin::Host host(io::Os::real(), memory, never);
  const Registry registry =
      Registry::load({dir / "none", dir / "b", dir / "a", dir / "again"}, host);
  CHECK(registry.plugins().empty());
  REQUIRE(registry.refusals().size() == 2);  // in the order of the folders, each folder once
  CHECK(registry.refusals()[0].path == dir / "b/another.xd.so");
  CHECK(registry.refusals()[1].path == dir / "a/broken.xd.so");
  CHECK(contains(registry.refusals()[1].reason, "invalid ELF header"));
  CHECK_FALSE(
      contains(registry.refusals()[1].reason, "broken.xd.so"));  // the path is told beside it
}

TEST_CASE(
    "folders are searched in the order given, environment, program, installation; never the "
    "current one") {
  setenv("CROSSDOCK_PLUGIN_PATH", "/env/one::/env/two", 1);
  const auto folders = plugin::default_plugin_folders({"/given/one", "/given/two"});
  unsetenv("CROSSDOCK_PLUGIN_PATH");
  REQUIRE(folders.size() >= 6);
  CHECK(folders[0] == "/given/one");
  CHECK(folders[1] == "/given/two");
  CHECK(folders[2] == "/env/one");
  CHECK(folders[3] == "/env/two");
  CHECK(contains(folders[4].string(), "/lib/" CROSSDOCK_PLUGIN_SUBDIR));
  CHECK(folders.back() == CROSSDOCK_PLUGIN_INSTALL_DIR);
  CHECK(plugin::default_plugin_folders({}).size() == folders.size() - 4);
  for (const fs::path& folder : plugin::default_plugin_folders({})) CHECK(folder.is_absolute());
}
