// SPDX-License-Identifier: Apache-2.0
#include "apps/validate/cases.h"
#include "apps/validate/child.h"

#include <dlfcn.h>

#include <boost/filesystem/operations.hpp>

#include <algorithm>
#include <iterator>

namespace crossdock::validate {

namespace {

namespace fs = boost::filesystem;
using Entry = xd_status(xd_call*, const xd_library**);

size_t count_in(const char* folder) {
  const auto n = std::distance(fs::directory_iterator(folder), fs::directory_iterator());
  return static_cast<size_t>(n);
}

Result<void*> open_library(const Job& job) {
  now_at("loading");
  void* const library = ::dlopen(fs::absolute(job.module).c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) return invalid(cat("it cannot be loaded with RTLD_NOW: ", ::dlerror()));
  return library;
}

Result<Entry*> open_entry(const Job& job) {
  XD_TRY_SET(void* library, open_library(job));
  void* const entry = ::dlsym(library, XD_ENTRY_SYMBOL);
  if (!entry) return invalid("expected the symbol " XD_ENTRY_SYMBOL ", found none");
  return reinterpret_cast<Entry*>(entry);
}

Result<std::string> one_symbol(const Job& job) {
  XD_TRY_SET(const auto symbols, exported_symbols(job.module));
  std::string others;
  for (const std::string& name : symbols) {
    if (!name.starts_with("xd_plugin_v")) others += cat(others.empty() ? "" : ", ", name);
  }
  if (std::find(symbols.begin(), symbols.end(), XD_ENTRY_SYMBOL) == symbols.end())
    return invalid("expected the symbol " XD_ENTRY_SYMBOL ", found none");
  if (others.size() > 300) others = others.substr(0, 300) + " ...";
  if (!others.empty())
    return invalid(cat("expected " XD_ENTRY_SYMBOL " alone to be exported, found ", others,
                       ": link with -Wl,--version-script, as crossdock_add_plugin() does"));
  return std::string();
}

Result<std::string> quiet_load(const Job& job) {
  const size_t threads = count_in("/proc/self/task"), files = count_in("/proc/self/fd");
  XD_TRY(open_library(job));
  if (count_in("/proc/self/task") != threads) return invalid("loading it started a thread");
  if (count_in("/proc/self/fd") != files) return invalid("loading it left a file open");
  return std::string();
}

Result<std::string> quiet_entry(const Job& job) {
  XD_TRY_SET(Entry* const entry, open_entry(job));
  test::MemoryHost host;
  test::MemoryHost::Call call(host);
  const xd_library* library = nullptr;
  if (!forbid_io(/*threads=*/true)) return skip("this system has no seccomp");
  now_at(XD_ENTRY_SYMBOL);
  const xd_status status = entry(&call, &library);
  if (status != XD_OK) return invalid(cat("it gave status ", status, ": ", call.message));
  if (!library) return invalid("it gave no library");
  const xd_library* again = nullptr;
  if (entry(&call, &again) != XD_OK || again != library)
    return invalid("a second call gave another library: it must have static storage");
  if (host.allocated != 0) return invalid("it keeps memory of the host's");
  return std::string();
}

Result<std::string> described(const Job& job) {
  XD_TRY_SET(const auto registry, load(job));
  std::string out;
  for (const plugin::Plugin& p : registry.plugins()) {
    out += cat(out.empty() ? "" : ", ", p.id(), " ", p.version());
    if (p.desc.struct_size == 0) return invalid(cat(p.id(), " has no size"));
    const uint64_t known = 2 * XD_CAP_QUANTISED - 1;
    if ((p.desc.caps & ~known) != 0) return invalid(cat(p.id(), " has capabilities of no meaning"));
  }
  return out;
}

}  // namespace

std::vector<Case> module_cases(const Job& job) {
  return {
      {"load.symbols", "exports xd_plugin_v1 and nothing else", [&] { return one_symbol(job); }},
      {"load.quiet", "loads with RTLD_NOW, starts no thread, opens no file",
       [&] { return quiet_load(job); }},
      {"load.entry", "the entry point does no I/O and gives the same library again",
       [&] { return quiet_entry(job); }},
      {"load.descriptors", "the host takes every plugin of it", [&] { return described(job); }},
  };
}

}  // namespace crossdock::validate
