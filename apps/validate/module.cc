// SPDX-License-Identifier: Apache-2.0
#include "apps/validate/module.h"

#include "apps/validate/child.h"
#include "core/plugin/host.h"

#include <elf.h>

#include <boost/filesystem/operations.hpp>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <iterator>
#include <optional>

namespace crossdock::validate {

namespace fs = boost::filesystem;

Result<plugin::Registry> load(const Job& job) {
  static const std::atomic<bool> never{false};
  static base::Memory memory(64 << 20);
  static plugin::Host host(io::Os::real(), memory, never);
  now_at("loading");
  plugin::Registry registry;
  registry.load_library(fs::absolute(job.module), host);
  if (!registry.refusals().empty()) return invalid(registry.refusals()[0].reason);
  return registry;
}

Result<const xd_plugin_desc*> find(const plugin::Registry& registry, const std::string& id) {
  for (const plugin::Plugin& p : registry.plugins()) {
    if (p.id() == id) return &p.desc;
  }
  return invalid(cat("expected the plugin ", id, ", found none"));
}

Result<Sample> read_sample(const std::string& path) {
  constexpr uint64_t kMax = uint64_t{256} << 20;
  Sample out;
  out.path = path;
  uint64_t total = 0;
  const auto add = [&](const fs::path& file, const std::string& name) -> Result<void> {
    total += fs::file_size(file);
    if (total > kMax)
      return invalid(cat(path, ": expected at most 256 MB, found more: a small input is enough"));
    std::ifstream in(file.string(), std::ios::binary);
    out.files[name] = std::string(std::istreambuf_iterator<char>(in), {});
    if (!in && !in.eof()) return Error{XD_IO, cat(file.string(), ": cannot be read")};
    return {};
  };
  boost::system::error_code ec;
  if (fs::is_regular_file(path, ec)) {
    out.named = fs::path(path).filename().string();
    XD_TRY(add(path, out.named));
    return out;
  }
  if (!fs::is_directory(path, ec))
    return Error{XD_NOT_FOUND, cat("expected a file or folder ", path, ", found none")};
  for (const auto& entry : fs::recursive_directory_iterator(path)) {
    if (fs::is_regular_file(entry.path()))
      XD_TRY(add(entry.path(), fs::relative(entry.path(), path).generic_string()));
  }
  return out;
}

void set(test::MemoryHost& host, const Sample& sample) {
  host.inputs = sample.files;
  host.named = sample.named;
}

test::OptionValues options_of(const Job& job, const xd_plugin_desc& plugin) {
  test::OptionValues out;
  for (const auto& [key, value] : job.options) {
    for (auto option = plugin.options; option && *option; ++option) {
      if (key == (*option)->name) out.emplace_back(key, value);
    }
  }
  return out;
}

namespace {

// A T at an offset of the file, if it lies inside.
template <class T>
std::optional<T> at(const std::string& bytes, uint64_t offset) {
  if (offset > bytes.size() || sizeof(T) > bytes.size() - offset) return std::nullopt;
  T out;
  std::memcpy(&out, bytes.data() + offset, sizeof out);
  return out;
}

}  // namespace

Result<std::vector<std::string>> exported_symbols(const std::string& path) {
  boost::system::error_code ec;
  if (!fs::is_regular_file(path, ec))
    return Error{XD_NOT_FOUND, "expected an ELF library, found no such file"};
  std::ifstream in(path, std::ios::binary);
  const std::string bytes(std::istreambuf_iterator<char>(in), {});
  const auto broken = [] { return corrupt("expected an ELF library of 64 bits, found none"); };
  const auto header = at<Elf64_Ehdr>(bytes, 0);
  if (!header || std::memcmp(header->e_ident, ELFMAG, SELFMAG) != 0) return broken();
  std::vector<std::string> out;
  for (unsigned i = 0; i < header->e_shnum; ++i) {
    const auto section = at<Elf64_Shdr>(bytes, header->e_shoff + uint64_t{i} * sizeof(Elf64_Shdr));
    if (!section) return broken();
    if (section->sh_type != SHT_DYNSYM) continue;
    const auto names =
        at<Elf64_Shdr>(bytes, header->e_shoff + uint64_t{section->sh_link} * sizeof(Elf64_Shdr));
    if (!names) return broken();
    for (uint64_t s = 0; s < section->sh_size / sizeof(Elf64_Sym); ++s) {
      const auto symbol = at<Elf64_Sym>(bytes, section->sh_offset + s * sizeof(Elf64_Sym));
      if (!symbol) return broken();
      const unsigned bind = ELF64_ST_BIND(symbol->st_info);
      const bool is_exported = symbol->st_shndx != SHN_UNDEF && symbol->st_shndx != SHN_ABS &&
                               (bind == STB_GLOBAL || bind == STB_WEAK);
      const uint64_t name = names->sh_offset + symbol->st_name;
      if (is_exported && name < bytes.size()) out.emplace_back(bytes.c_str() + name);
    }
  }
  return out;
}

}  // namespace crossdock::validate
