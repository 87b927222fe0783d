// SPDX-License-Identifier: Apache-2.0
#include "core/plugin/registry.h"

#include "core/base/text.h"
#include "core/plugin/active_calls.h"
#include "core/plugin/host.h"
#include "core/plugin/options.h"

#include <dlfcn.h>
#include <link.h>

#include <boost/dll/runtime_symbol_info.hpp>
#include <boost/dll/shared_library.hpp>
#include <boost/filesystem/operations.hpp>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <optional>
#include <sstream>

namespace crossdock::plugin {

namespace {

// What every version of a struct has: its own size.
constexpr size_t kLeast = sizeof(uint32_t);

bool has_text(const char* text) { return text && *text; }

// One line that a terminal can show.
bool is_line(const char* text) {
  constexpr size_t kMax = 400;
  if (!has_text(text) || strnlen(text, kMax + 1) > kMax) return false;
  return base::is_utf8(text) && base::printable(text) == text;
}

// As --from and --to take it, and messages show it.
bool is_name(const char* text) {
  constexpr char kAllowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_/+";
  return is_line(text) && text[std::strspn(text, kAllowed)] == '\0';
}

// A list of texts that ends in NULL, each as `is_right` wants it.
bool are_all(const char* const* list, bool (*is_right)(const char*)) {
  constexpr size_t kMax = 100;
  size_t n = 0;
  for (; list && list[n]; ++n) {
    if (n == kMax || !is_right(list[n])) return false;
  }
  return true;
}

bool is_option_type(std::string_view type) {
  constexpr std::string_view kTypes[] = {"bool", "int", "float", "size", "string", "list", "file"};
  return base::is_one_of(type, kTypes) || (type.starts_with("enum:") && type.size() > 5);
}

const char* option_problem(const xd_option_desc* const* options) {
  const auto all = options;
  for (; options && *options; ++options) {
    const xd_option_desc& o = **options;
    // The least that there ever was. A field that is appended later must be asked for here by its
    // own offset.
    if (o.struct_size < offsetof(xd_option_desc, help) + sizeof o.help || !has_text(o.name) ||
        !has_text(o.type))
      return "an option without a name or type";
    // As a flag on the command line: a comma or an equals sign would mean something else there.
    if (o.name[std::strspn(o.name, "abcdefghijklmnopqrstuvwxyz0123456789-")] != '\0')
      return "an option whose name is not of a-z, 0-9 and -";
    if (o.name[0] == '-') return "an option whose name begins with -";
    for (auto other = all; other != options; ++other) {
      if (std::string_view((*other)->name) == o.name) return "an option that comes twice";
    }
    if (!is_option_type(o.type)) return "an option of a type that is not known";
    if ((o.help && !is_line(o.help)) || (o.fallback && *o.fallback && !is_line(o.fallback)))
      return "an option whose help or fallback is not one line of UTF-8";
    const bool has_fallback = has_text(o.fallback) && std::string_view(o.type) != "file";
    if (has_fallback && !CheckedOptions::check_value(o, o.fallback))
      return "an option with a fallback that is not of its type";
  }
  return nullptr;
}

// What is wrong with a plugin's description, or nullptr.
const char* problem(const xd_plugin_desc* given, Plugin& out) {
  if (!copy_known(given, out.desc, kLeast)) return "a plugin without a description";
  if (!has_text(out.desc.id)) return "a plugin without an id";
  if (!has_text(out.desc.version) || !has_text(out.desc.summary))
    return "a plugin without a version or summary";
  if (!is_name(out.desc.id)) return "a plugin whose id is not of letters, digits and . - _ / +";
  if (!is_line(out.desc.version) || !is_line(out.desc.summary))
    return "a plugin whose version or summary is not one line of UTF-8";
  if (out.format().empty()) return "a plugin that names no format";
  if (out.format() == "auto") return "a plugin of the format \"auto\", which means any";
  if (!are_all(out.desc.formats, is_name) || !are_all(out.desc.patterns, is_line))
    return "a plugin with a format or pattern that is not a name, or with more than 100";
  if (const char* text = option_problem(out.desc.options)) return text;
  if (out.desc.kind == XD_READER) {
    if (out.desc.writer || !copy_known(out.desc.reader, out.reader, kLeast))
      return "a reader that does not have just a reader's table";
    const xd_reader_api& r = out.reader;
    return r.probe && r.open && r.manifest && r.read && r.close
               ? nullptr
               : "a reader whose table lacks a function";
  }
  if (out.desc.kind != XD_WRITER) return "a plugin that is neither reader nor writer";
  if (out.desc.reader || !copy_known(out.desc.writer, out.writer, kLeast))
    return "a writer that does not have just a writer's table";
  const xd_writer_api& w = out.writer;
  return w.open && w.plan && w.write_item && w.seal && w.commit && w.close
             ? nullptr
             : "a writer whose table lacks a function";
}

// The loader's messages begin with the path, which our callers print too.
std::string without_path(const fs::path& path, std::string message) {
  const std::string prefix = path.string() + ": ";
  return message.starts_with(prefix) ? message.substr(prefix.size()) : message;
}

}  // namespace

void Registry::load_library(const fs::path& path, Host& host) {
  const auto refuse = [&](std::string reason) { refusals_.push_back({path, std::move(reason)}); };
  namespace dll = boost::dll;
  boost::dll::fs::error_code ec;
  // Now: a missing symbol is found here, not when a conversion first calls it. Local: plugins must
  // not see each other. Never unloaded, so never destroyed; reachable from here, or it would count
  // as a leak.
  static auto* const kept = new std::deque<dll::shared_library>();
  dll::shared_library* library = &kept->emplace_back();
  ::dlerror();
  const std::string name = path.string();
  std::optional<ActiveCall> loading(std::in_place, name.c_str(), "its constructors");
  library->load(path, dll::load_mode::rtld_now | dll::load_mode::rtld_local, ec);
  loading.reset();
  Host::restore_arithmetic();  // constructors have run
  if (ec) {
    const char* message = ::dlerror();  // Boost's code alone says "Bad file descriptor"
    return refuse(without_path(path, message ? message : ec.message()));
  }
  if (!library->has(XD_ENTRY_SYMBOL))
    return refuse("expected the symbol " XD_ENTRY_SYMBOL
                  ", found none: it is not a plugin, or of another ABI");
  const auto entry = library->get<xd_status(xd_call*, const xd_library**)>(XD_ENTRY_SYMBOL);
  const xd_library* given = nullptr;
  const auto loaded = host.call({.plugin = name.c_str(), .function = XD_ENTRY_SYMBOL},
                                [&](xd_call* c) { return entry(c, &given); });
  if (!loaded) return refuse(without_path(path, loaded.error().message));
  // What it gives may be anything.
  const ActiveCall looking(name.c_str(), "what it describes");
  xd_library offered{};
  if (!copy_known(given, offered, kLeast) || !offered.plugins)
    return refuse("it describes no plugins");
  if (offered.needs_minor > XD_ABI_MINOR) {
    return refuse(cat("expected a plugin for ABI 1.", XD_ABI_MINOR,
                      " or lower, found one that needs 1.", offered.needs_minor,
                      ": update crossdock"));
  }
  constexpr size_t kMaxPlugins = 100;
  size_t n = 0;
  for (; n < kMaxPlugins && offered.plugins[n]; ++n) add(path, offered.plugins[n]);
  if (n == 0) refuse("it describes no plugins");
}

void Registry::add(const fs::path& path, const xd_plugin_desc* desc) {
  const auto refuse = [&](std::string reason) { refusals_.push_back({path, std::move(reason)}); };
  Plugin plugin;
  plugin.path = path;
  if (const char* text = problem(desc, plugin)) return refuse(text);
  const auto same = std::find_if(plugins_.begin(), plugins_.end(),
                                 [&](const Plugin& other) { return other.id() == plugin.id(); });
  if (same != plugins_.end())
    return refuse(cat(plugin.id(), " was already loaded from ", same->path.string()));
  if (std::string text = option_clash(plugin); !text.empty()) return refuse(std::move(text));
  plugins_.push_back(plugin);
}

// Why one of the plugin's options cannot be a flag beside all others, or nothing.
std::string Registry::option_clash(const Plugin& plugin) const {
  for (const auto* mine = plugin.desc.options; mine && *mine; ++mine) {
    const std::string_view name = (*mine)->name;
    if (std::find(reserved_.begin(), reserved_.end(), name) != reserved_.end())
      return cat("its option --", name, " is one of crossdock's own");
    for (const Plugin& other : plugins_) {
      if (!plugin.is_reader() && !other.is_reader()) continue;
      for (const auto* theirs = other.desc.options; theirs && *theirs; ++theirs) {
        if (name == (*theirs)->name && std::string_view((*mine)->type) != (*theirs)->type) {
          return cat("its option --", name, " is of the type ", (*mine)->type, ", but ",
                     (*theirs)->type, " in ", other.id());
        }
      }
    }
  }
  return "";
}

Registry Registry::load(const std::vector<fs::path>& folders, Host& host,
                        std::vector<std::string> reserved) {
  Registry registry(std::move(reserved));
  std::vector<fs::path> seen;
  for (const fs::path& folder : folders) {
    boost::system::error_code ec;
    const fs::path real = fs::canonical(folder, ec);
    if (ec || std::find(seen.begin(), seen.end(), real) != seen.end()) continue;
    seen.push_back(real);
    std::vector<fs::path> libraries;
    for (fs::directory_iterator it(real, ec); !ec && it != fs::directory_iterator();
         it.increment(ec)) {
      const std::string name = it->path().filename().string();
      if (name.size() > 6 && name.compare(name.size() - 6, 6, ".xd.so") == 0)
        libraries.push_back(it->path());
    }
    std::sort(libraries.begin(), libraries.end());
    for (const fs::path& library : libraries) registry.load_library(library, host);
  }
  return registry;
}

const Plugin* Registry::find(uint32_t kind, const std::string& format) const {
  for (const Plugin& plugin : plugins_) {
    if (plugin.desc.kind != kind) continue;
    if (plugin.id() == format) return &plugin;
    for (const char* const* f = plugin.desc.formats; *f; ++f) {
      if (format == *f) return &plugin;
    }
  }
  return nullptr;
}

std::string Registry::formats(uint32_t kind) const {
  std::string out;
  for (const Plugin& plugin : plugins_) {
    if (plugin.desc.kind == kind) out += (out.empty() ? "" : ", ") + plugin.format();
  }
  return out.empty() ? "none" : out;
}

namespace {

// The shared library that this code is part of (libcrossdock_host); empty in a program of ours.
fs::path own_library() {
  Dl_info info{};
  link_map* map = nullptr;
  const int found = ::dladdr1(reinterpret_cast<const void*>(&own_library), &info,
                              reinterpret_cast<void**>(&map), RTLD_DL_LINKMAP);
  // The program itself is the only one that the loader has no name for.
  return found && map && map->l_name ? fs::path(map->l_name) : fs::path();
}

// Where a folder of ours may be: PREFIX/bin/../lib, beside the library that this is part of, and
// where it was installed.
std::vector<fs::path> places(const char* subfolder) {
  std::vector<fs::path> out;
  if (const fs::path library = own_library(); !library.empty()) {
    out.push_back(fs::absolute(library).parent_path() / subfolder);
  } else {
    const fs::path prefix = boost::dll::program_location().parent_path().parent_path();
    out.push_back(prefix / "lib" / subfolder);
    if (fs::path(CROSSDOCK_LIBDIR) != "lib") out.push_back(prefix / CROSSDOCK_LIBDIR / subfolder);
  }
  // A wheel is installed anywhere: it has no such folder.
  if (*CROSSDOCK_INSTALL_DIR) out.push_back(fs::path(CROSSDOCK_INSTALL_DIR) / subfolder);
  return out;
}

}  // namespace

std::vector<fs::path> rule_folders() { return places(CROSSDOCK_RULES_SUBDIR); }

std::vector<fs::path> default_plugin_folders(const std::vector<std::string>& given) {
  std::vector<fs::path> out(given.begin(), given.end());
  if (const char* path = std::getenv("CROSSDOCK_PLUGIN_PATH")) {
    std::istringstream parts(path);
    for (std::string part; std::getline(parts, part, ':');) {
      if (!part.empty()) out.emplace_back(part);
    }
  }
  for (fs::path& folder : places(CROSSDOCK_PLUGIN_SUBDIR)) out.push_back(std::move(folder));
  return out;
}

}  // namespace crossdock::plugin
