#include "core/plugin/registry.h"

#include "core/plugin/host.h"

#include <dlfcn.h>
#include <link.h>

#include <boost/dll/runtime_symbol_info.hpp>
#include <boost/dll/shared_library.hpp>
#include <boost/filesystem/operations.hpp>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <sstream>

namespace crossdock::plugin {

namespace {

// As much of a plugin's struct as it and we both know; the rest stays zero.
template <class T>
bool copy_known(const T* from, T& to) {
  if (!from || from->struct_size < offsetof(T, struct_size) + sizeof(uint32_t)) return false;
  std::memcpy(&to, from, std::min<size_t>(from->struct_size, sizeof(T)));
  to.struct_size = sizeof(T);
  return true;
}

bool has_text(const char* text) { return text && *text; }

const char* option_problem(const xd_option_desc* const* options) {
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
  }
  return nullptr;
}

// What is wrong with a plugin's description, or nullptr.
const char* problem(const xd_plugin_desc* given, Plugin& out) {
  if (!copy_known(given, out.desc)) return "a plugin without a description";
  if (!has_text(out.desc.id)) return "a plugin without an id";
  if (!has_text(out.desc.version) || !has_text(out.desc.summary))
    return "a plugin without a version or summary";
  if (out.format().empty()) return "a plugin that names no format";
  if (const char* text = option_problem(out.desc.options)) return text;
  if (out.desc.kind == XD_READER) {
    if (out.desc.writer || !copy_known(out.desc.reader, out.reader))
      return "a reader that does not have just a reader's table";
    const xd_reader_api& r = out.reader;
    return r.probe && r.open && r.manifest && r.read && r.close
               ? nullptr
               : "a reader whose table lacks a function";
  }
  if (out.desc.kind != XD_WRITER) return "a plugin that is neither reader nor writer";
  if (out.desc.reader || !copy_known(out.desc.writer, out.writer))
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

void Registry::load_library(const fs::path& path, const xd_host* host) {
  const auto refuse = [&](std::string reason) { refusals_.push_back({path, std::move(reason)}); };
  namespace dll = boost::dll;
  boost::dll::fs::error_code ec;
  // Now: a missing symbol is found here, not when a conversion first calls it. Local: plugins must
  // not see each other. Never unloaded, so never destroyed; reachable from here, or it would count
  // as a leak.
  static auto* const kept = new std::deque<dll::shared_library>();
  dll::shared_library* library = &kept->emplace_back();
  ::dlerror();
  library->load(path, dll::load_mode::rtld_now | dll::load_mode::rtld_local, ec);
  if (ec) {
    const char* message = ::dlerror();  // Boost's code alone says "Bad file descriptor"
    return refuse(without_path(path, message ? message : ec.message()));
  }
  if (!library->has(XD_ENTRY_SYMBOL))
    return refuse("expected the symbol " XD_ENTRY_SYMBOL
                  ", found none: it is not a plugin, or of another ABI");
  const auto entry =
      library->get<xd_status(const xd_host*, const xd_library**, xd_error*)>(XD_ENTRY_SYMBOL);
  const xd_library* given = nullptr;
  xd_error slot;
  if (entry(host, &given, &slot) != XD_OK)
    return refuse(slot.message.empty() ? "it refused to load" : slot.message);
  xd_library offered{};
  if (!copy_known(given, offered) || !offered.plugins) return refuse("it describes no plugins");
  if (offered.needs_minor > XD_ABI_MINOR) {
    return refuse(cat("expected a plugin for ABI 1.", XD_ABI_MINOR,
                      " or lower, found one that needs 1.", offered.needs_minor,
                      ": update crossdock"));
  }
  for (const xd_plugin_desc* const* p = offered.plugins; *p; ++p) add(path, *p);
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

Registry Registry::load(const std::vector<fs::path>& folders, const xd_host* host,
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
