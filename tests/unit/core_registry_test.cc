// What a module may get wrong, and what the host says to it, is shown with real modules in tests/abi.
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
  CHECK(registry.refusals()[0].reason == "org.example.reader.fake was already loaded from first/a.xd.so");
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

TEST_CASE("only modules are looked at, and a module that is none is refused with the loader's reason") {
  const TempDir dir;
  put(dir / "a/broken.xd.so", std::string(4096, 'x'));
  put(dir / "a/libother.so", "not ELF");
  put(dir / "a/.xd.so", "not ELF");
  put(dir / "b/another.xd.so", "not ELF");
  fs::create_symlink("a", dir / "again");
  const Registry registry = Registry::load({dir / "none", dir / "b", dir / "a", dir / "again"}, nullptr);
  CHECK(registry.plugins().empty());
  REQUIRE(registry.refusals().size() == 2);  // in the order of the folders, each folder once
  CHECK(registry.refusals()[0].path == dir / "b/another.xd.so");
  CHECK(registry.refusals()[1].path == dir / "a/broken.xd.so");
  CHECK(contains(registry.refusals()[1].reason, "invalid ELF header"));
}

TEST_CASE("folders are searched in the order given, environment, program, installation; never the current one") {
  setenv("CROSSDOCK_PLUGIN_PATH", "/env/one::/env/two", 1);
  const auto folders = plugin::default_plugin_folders({"/given/one", "/given/two"});
  unsetenv("CROSSDOCK_PLUGIN_PATH");
  REQUIRE(folders.size() == 6);
  CHECK(folders[0] == "/given/one");
  CHECK(folders[1] == "/given/two");
  CHECK(folders[2] == "/env/one");
  CHECK(folders[3] == "/env/two");
  CHECK(contains(folders[4].string(), "/lib/" CROSSDOCK_PLUGIN_SUBDIR));
  CHECK(folders[5] == CROSSDOCK_PLUGIN_INSTALL_DIR);
  CHECK(plugin::default_plugin_folders({}).size() == 2);
  for (const fs::path& folder : plugin::default_plugin_folders({})) CHECK(folder.is_absolute());
}
