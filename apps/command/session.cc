// SPDX-License-Identifier: Apache-2.0
#include "apps/command/session.h"

#include "apps/command/convert_args.h"
#include "apps/command/inspect_args.h"
#include "core/base/text.h"
#include "core/convert/plain_weights.h"
#include "core/convert/request.h"

#include <fmt/format.h>

#include <algorithm>
#include <thread>
#include <utility>

namespace crossdock::app {

std::string peek(const std::vector<std::string>& args, const std::string& flag,
                 const std::string& fallback) {
  for (size_t i = 0; i < args.size(); ++i) {
    if (args[i] == flag && i + 1 < args.size()) return args[i + 1];
    if (args[i].starts_with(flag + "=")) return args[i].substr(flag.size() + 1);
  }
  return fallback;
}

std::vector<std::string> names(const po::options_description& description) {
  std::vector<std::string> out;
  for (const auto& option : description.options()) out.push_back(option->long_name());
  return out;
}

namespace {

std::vector<std::string> own_flags() {
  std::vector<std::string> out = convert_flags();
  for (std::string& name : inspect_flags()) out.push_back(std::move(name));
  std::erase(out, convert::kDequantDtype);  // which readers share
  return out;
}

}  // namespace

std::vector<std::string> plugin_paths(const std::vector<std::string>& args) {
  std::vector<std::string> out;
  for (size_t i = 0; i < args.size(); ++i) {
    if (args[i] == "--plugin-path" && i + 1 < args.size()) out.push_back(args[i + 1]);
    if (args[i].starts_with("--plugin-path=")) out.push_back(args[i].substr(14));
  }
  return out;
}

Session::Session(const std::vector<std::string>& args, uint64_t memory,
                 const std::atomic<bool>& cancelled, Log log)
    : memory_(memory),
      host_(io::Os::real(), memory_, cancelled),
      registry_(plugin::Registry::load(plugin::default_plugin_folders(plugin_paths(args)),
                                       host_, own_flags())) {
  host_.log = std::move(log);
}

void Session::warn_of_refusals() const {
  for (const plugin::Refusal& r : registry_.refusals())
    host_.log(XD_LOG_WARN, cat("plugin not used: ", r.path.string(), ": ", r.reason));
}

void add_flags(po::options_description& description, const xd_option_desc* const* options,
               const po::options_description& others) {
  for (; options && *options; ++options) {
    const xd_option_desc& o = **options;
    if (description.find_nothrow(o.name, false) || others.find_nothrow(o.name, false))
      continue;  // another plugin's too, and of the same type
    const std::string type = o.type;
    const std::string fallback = o.fallback ? o.fallback : "";
    std::string help = o.help ? o.help : "";
    if (type == "bool") {
      description.add_options()(o.name, po::bool_switch(), help.c_str());
      continue;
    }
    const std::string kind = type.starts_with("enum:") ? type.substr(5)
                             : type == "file"          ? "FILE"
                                                       : type;
    if (!fallback.empty()) help += fmt::format(" (default {})", fallback);
    if (!o.fallback) help += " (required)";
    description.add_options()(
        o.name, po::value<std::vector<std::string>>()->composing()->value_name(kind), help.c_str());
  }
}

plugin::GivenOptions given_options(const po::variables_map& values,
                                   const xd_option_desc* const* options) {
  plugin::GivenOptions out;
  for (; options && *options; ++options) {
    const std::string name = (*options)->name;
    if (!values.count(name)) continue;
    if (std::string((*options)->type) == "bool") {
      if (values[name].as<bool>()) out[name] = {"true"};
    } else {
      out[name] = values[name].as<std::vector<std::string>>();
    }
  }
  return out;
}

void add_work_flags(po::options_description& description, unsigned& threads) {
  description.add_options()  //
      ("threads",
       po::value(&threads)->value_name("N")->default_value(default_threads(), "all cores"),
       "worker threads")  //
      ("progress", po::value<std::string>()->value_name(kProgressStyles)->default_value("auto"),
       "how progress is shown")  //
      ("plugin-path", po::value<std::vector<std::string>>()->composing()->value_name("DIR"),
       "look for plugins here first (repeatable)");
}

void check_choice(const char* flag, const char* choices, const std::string& word) {
  const bool is_one = !word.empty() && word.find('|') == std::string::npos &&
                      cat("|", choices, "|").find(cat("|", word, "|")) != std::string::npos;
  if (!is_one) throw po::error(cat("--", flag, ": expected one of ", choices, ", found ", word));
}

std::string check_work_flags(const po::variables_map& values, unsigned threads) {
  if (threads == 0 || threads > 1024) throw po::error("--threads: expected 1 to 1024");
  const auto& progress = values["progress"].as<std::string>();
  check_choice("progress", kProgressStyles, progress);
  return progress;
}

uint64_t given_memory(const po::variables_map& values) {
  const uint64_t bytes = values["memory"].as<Size>().bytes;
  if (bytes < convert::kMinMemory) throw po::error("--memory: expected at least 8MiB");
  return bytes;
}

void add_dequant_flag(po::options_description& description) {
  description.add_options()(
      convert::kDequantDtype,
      po::value<std::vector<std::string>>()->composing()->value_name(convert::kDequantDtypes),
      "what the codes of quantised weights become; auto: the dtype of config.json, of GGUF fp32");
}

std::string given_dequant_dtype(const po::variables_map& values) {
  if (!values.count(convert::kDequantDtype)) return "auto";
  const auto& given = values[convert::kDequantDtype].as<std::vector<std::string>>();
  check_choice(convert::kDequantDtype, convert::kDequantDtypes,
               given.size() == 1 ? given[0] : base::listed(given, given.size()));
  return given[0];
}

void add_rule_flags(po::options_description& description, rules::RuleFiles& files,
                    bool& keep_unmatched) {
  files.folders = plugin::rule_folders();
  const auto add_files = [&files](const std::vector<std::string>& given) {
    files.files.assign(given.begin(), given.end());
  };
  description.add_options()  //
      ("rules",
       po::value<std::vector<std::string>>()->composing()->value_name("FILE")->notifier(add_files),
       "rules of your own for modules and layouts, asked first (repeatable); docs/rules.md tells "
       "how to write them")  //
      ("keep-unmatched", po::bool_switch(&keep_unmatched),
       "tensors that no rule takes stay under their own names");
}

po::variables_map parse(const std::vector<std::string>& args,
                        const po::options_description& description,
                        const std::vector<std::string>& positional) {
  po::options_description all;
  all.add(description);
  po::positional_options_description positions;
  for (const std::string& name : positional) {
    all.add_options()(name.c_str(), po::value<std::string>());
    positions.add(name.c_str(), 1);
  }
  po::variables_map values;
  // No guessing: a flag's beginning must not stand for it, since a plugin may add a flag with the
  // same beginning.
  const int style = po::command_line_style::unix_style & ~po::command_line_style::allow_guessing;
  po::store(po::command_line_parser(args).options(all).positional(positions).style(style).run(),
            values);
  po::notify(values);
  return values;
}

void validate(boost::any& out, const std::vector<std::string>& values, Size*, int) {
  po::validators::check_first_occurrence(out);
  const std::string& text = po::validators::get_single_string(values);
  const auto bytes = base::parse_size(text);
  if (!bytes) throw po::error("expected a size such as 256MiB, found " + text);
  out = Size{*bytes};
}

unsigned default_threads() { return std::max(1u, std::thread::hardware_concurrency()); }

}  // namespace crossdock::app
