// SPDX-License-Identifier: Apache-2.0

// What every verb needs: the loaded plugins, and the options that all verbs share. Nothing here
// prints: the command does, and libcrossdock_host tells its caller.
#pragma once

#include "core/base/memory.h"
#include "core/plugin/host.h"
#include "core/plugin/options.h"
#include "core/plugin/registry.h"
#include "core/rules/rule_set.h"

#include <boost/program_options.hpp>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace crossdock::app {

namespace po = boost::program_options;

inline constexpr unsigned kHelpWidth = 110;
inline constexpr char kProgressStyles[] = "auto|bar|plain|json|none";

// --plugin-path as given anywhere on the command line; needed before the rest can be parsed, since
// plugins add flags.
std::vector<std::string> plugin_paths(const std::vector<std::string>& args);
// The value of `--flag VALUE` or `--flag=VALUE`; `fallback` without one.
std::string peek(const std::vector<std::string>& args, const std::string& flag,
                 const std::string& fallback);

// Loaded plugins. `cancelled` and the memory budget serve plugin calls outside a conversion.
class Session {
 public:
  using Log = std::function<void(int32_t level, const std::string& text)>;
  // `log` gets what plugins have to say, from any thread; `cancelled` outlives it.
  Session(const std::vector<std::string>& args, uint64_t memory, const std::atomic<bool>& cancelled,
          Log log);
  const plugin::Registry& registry() const { return registry_; }
  plugin::Host& host() { return host_; }
  // Tells of plugins that cannot be used; for the verbs that might have wanted one.
  void warn_of_refusals() const;

 private:
  base::Memory memory_;
  plugin::Host host_;
  plugin::Registry registry_;
};

struct OptionGroup {
  std::string caption;
  std::shared_ptr<const po::options_description> options;
};

std::vector<std::string> names(const po::options_description& description);

// Adds a plugin's options as ordinary flags, but not those that are there already.
void add_flags(po::options_description& description, const xd_option_desc* const* options,
               const po::options_description& others = {});
// Those of its options that were given.
plugin::GivenOptions given_options(const po::variables_map& values,
                                   const xd_option_desc* const* options);

// --threads, --progress and --plugin-path, of every verb that works for long.
void add_work_flags(po::options_description& description, unsigned& threads);
// Gives --progress. Throws po::error for numbers and words that cannot be.
std::string check_work_flags(const po::variables_map& values, unsigned threads);
// --memory's. Throws po::error where it is too little.
uint64_t given_memory(const po::variables_map& values);

// --dequant-dtype, of the host and of readers that dequantise on their own.
void add_dequant_flag(po::options_description& description);
// As given, or "auto". Throws po::error for another value.
std::string given_dequant_dtype(const po::variables_map& values);

// --rules and --keep-unmatched, and where the rules are.
void add_rule_flags(po::options_description& description, rules::RuleFiles& files,
                    bool& keep_unmatched);

// Parses `args` against `description` and positional names; throws po::error with a message for the
// user.
po::variables_map parse(const std::vector<std::string>& args,
                        const po::options_description& description,
                        const std::vector<std::string>& positional);

// "1073741824" from "1GiB", as a program option that checks itself.
struct Size {
  uint64_t bytes = 0;
};
void validate(boost::any& out, const std::vector<std::string>& values, Size*, int);
inline std::ostream& operator<<(std::ostream& out, const Size& size) {
  return out << (size.bytes >> 20) << "MiB";
}

unsigned default_threads();

// One of "a|b|c", which a flag's value_name tells. Throws po::error for another word.
void check_choice(const char* flag, const char* choices, const std::string& word);
inline constexpr char kLogLevels[] = "debug|info|warn|error";

}  // namespace crossdock::app
