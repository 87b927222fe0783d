// SPDX-License-Identifier: Apache-2.0

// Finds and loads plugin libraries, and keeps what they offer.
//
// Search order: the folders given (--plugin-path), those of CROSSDOCK_PLUGIN_PATH (':'-separated),
// the one of the prefix that the executable or libcrossdock_host is in, the installed one. Never
// the current directory. A library is any
// NAME.xd.so there. The first plugin with an id is used; later ones with the same id, and libraries
// that cannot be used, are listed with their paths and reasons. An option's name may be used by
// several plugins. Where two can be asked for at once (two readers, a reader and a writer) it must
// be of one type; it is then one flag, given to both. Libraries are never unloaded. Threads:
// immutable after load() and add().
#pragma once

#include <crossdock/plugin.h>
#include <crossdock/result.hpp>

#include <boost/filesystem/path.hpp>

#include <string>
#include <vector>

namespace crossdock::plugin {

namespace fs = boost::filesystem;

class Host;

struct Plugin {
  // Our own copies: a plugin of an older minor gives shorter structs, whose missing tail reads as
  // zero.
  xd_plugin_desc desc{};
  xd_reader_api reader{};
  xd_writer_api writer{};
  fs::path path;

  bool is_reader() const { return desc.kind == XD_READER; }
  std::string id() const { return desc.id; }
  std::string version() const { return desc.version ? desc.version : ""; }
  std::string format() const { return desc.formats && desc.formats[0] ? desc.formats[0] : ""; }
  bool concurrent() const { return desc.caps & XD_CAP_CONCURRENT; }
};

struct Refusal {
  fs::path path;
  std::string reason;
};

class Registry {
 public:
  // `reserved`: names that no plugin's option can have, since they are the caller's own flags.
  explicit Registry(std::vector<std::string> reserved = {}) : reserved_(std::move(reserved)) {}

  // `host`: for the load calls only.
  static Registry load(const std::vector<fs::path>& folders, Host& host,
                       std::vector<std::string> reserved = {});

  // The plugins of one library.
  void load_library(const fs::path& path, Host& host);
  // One plugin, as if the library at `path` had offered it. For programs that link their plugins
  // in, and for tests.
  void add(const fs::path& path, const xd_plugin_desc* desc);

  const std::vector<Plugin>& plugins() const { return plugins_; }
  const std::vector<Refusal>& refusals() const { return refusals_; }
  const Plugin* find_reader(const std::string& format) const { return find(XD_READER, format); }
  const Plugin* find_writer(const std::string& format) const { return find(XD_WRITER, format); }
  // "safetensors, bin": for messages.
  std::string formats(uint32_t kind) const;

 private:
  const Plugin* find(uint32_t kind, const std::string& format) const;
  std::string option_clash(const Plugin& plugin) const;
  std::vector<Plugin> plugins_;
  std::vector<Refusal> refusals_;
  std::vector<std::string> reserved_;
};

// Where rules for architectures are: beside the plugins of this program, then the installed ones.
std::vector<fs::path> rule_folders();
std::vector<fs::path> default_plugin_folders(const std::vector<std::string>& given);

}  // namespace crossdock::plugin
