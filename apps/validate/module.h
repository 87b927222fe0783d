// SPDX-License-Identifier: Apache-2.0

// The module under test, and what it is tested with.
#pragma once

#include "core/plugin/registry.h"

#include <crossdock/testing/memory_host.h>
#include <crossdock/result.hpp>

#include <map>
#include <string>
#include <vector>

namespace crossdock::validate {

// What the user gave.
struct Job {
  std::string module;                   // the path of the library
  std::vector<std::string> corpus;      // files and folders that its readers read
  test::OptionValues options;           // for its plugins; each gets those that it knows
  unsigned seconds = 60;                // of one case
  uint64_t seed = 1;                    // of what is sampled
  size_t samples = 200;                 // of truncations and flips of one input
  uint64_t memory = uint64_t{4} << 30;  // of address space of one case
};

// One of its plugins, as the parent knows it without loading it.
struct PluginName {
  std::string id;
  uint32_t kind = 0;
};

// Loads it as the host does. In a child only. Errors: the host refuses it.
Result<plugin::Registry> load(const Job& job);
// The descriptor of one of its plugins.
Result<const xd_plugin_desc*> find(const plugin::Registry& registry, const std::string& id);

// An input as a host in memory gives it.
struct Sample {
  std::string path;  // as the user gave it
  std::map<std::string, std::string> files;
  std::string named;  // the file that it is; empty: a folder
};
Result<Sample> read_sample(const std::string& path);
void set(test::MemoryHost& host, const Sample& sample);

// Those of the job's options that the plugin has.
test::OptionValues options_of(const Job& job, const xd_plugin_desc& plugin);

// The symbols that a library exports, by its ELF tables. Errors: no ELF library of 64 bits.
Result<std::vector<std::string>> exported_symbols(const std::string& path);

}  // namespace crossdock::validate
