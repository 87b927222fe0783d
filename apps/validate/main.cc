// SPDX-License-Identifier: Apache-2.0

// crossdock-validate: whether a plugin keeps what plugin.h asks, case by case.
#include "apps/validate/cases.h"
#include "apps/validate/child.h"
#include "core/base/json_writer.h"
#include "core/base/text.h"

#include <fmt/format.h>

#include <boost/program_options.hpp>

#include <algorithm>
#include <exception>
#include <set>
#include <sstream>

namespace crossdock::validate {

namespace {

namespace po = boost::program_options;

constexpr int kHeld = 0, kBroken = 1, kUsage = 2;

constexpr char kHelp[] =
    R"(crossdock-validate MODULE [CORPUS...]

Holds a plugin library to what plugin.h and ABI.md ask of it. Each case runs in a process of its own,
with a time limit. CORPUS: small files and folders that the library's readers read; without any,
readers are tried with noise only. Writers get models that are made for them.

Exit code: 0 all cases hold, 1 some do not, 2 wrong usage.
)";

struct Row {
  std::string plugin, input;
  std::string name, about;
  Outcome outcome;
};

const char* word(Verdict verdict) {
  return verdict == Verdict::kPassed ? "ok" : verdict == Verdict::kFailed ? "FAILED" : "skipped";
}

// The library's plugins, as a child tells them: this process never loads it.
std::vector<PluginName> names_of(const Job& job) {
  const auto tell = [&job]() -> Result<std::string> {
    XD_TRY_SET(const auto registry, load(job));
    std::string out;
    for (const plugin::Plugin& p : registry.plugins())
      out += cat(p.is_reader() ? 'r' : 'w', p.id(), '\n');
    return out;
  };
  const Outcome told = run_in_child(tell, job.seconds, job.memory);
  std::vector<PluginName> out;
  if (told.verdict != Verdict::kPassed) return out;
  for (size_t at = 0, end = 0; at < told.text.size(); at = end + 1) {
    end = told.text.find('\n', at);
    const uint32_t kind = told.text[at] == 'r' ? XD_READER : XD_WRITER;
    out.push_back({told.text.substr(at + 1, end - at - 1), kind});
  }
  return out;
}

int usage(const std::string& text) {
  fmt::print(stderr, "crossdock-validate: {}\nTry: crossdock-validate --help\n",
             base::printable(text));
  return kUsage;
}

// Runs cases and shows each as it ends.
class Table {
 public:
  Table(const Job& job, std::vector<std::string> only, bool is_json)
      : job_(job), only_(std::move(only)), is_json_(is_json) {}

  void run(const std::string& plugin, const std::string& input, const std::vector<Case>& cases) {
    bool is_told = is_json_;
    for (const Case& one : cases) {
      known_.insert(one.name);
      if (!only_.empty() && std::find(only_.begin(), only_.end(), one.name) == only_.end())
        continue;
      if (!is_told) fmt::print("{}{}{}\n", plugin, input.empty() ? "" : "  ", input);
      is_told = true;
      const Row& row = rows_.emplace_back(Row{plugin, input, one.name, one.about,
                                              run_in_child(one.body, job_.seconds, job_.memory)});
      if (!is_json_) show(row);
    }
  }

  int finish() const {
    const auto count = [&](Verdict verdict) {
      return std::count_if(rows_.begin(), rows_.end(),
                           [=](const Row& row) { return row.outcome.verdict == verdict; });
    };
    const auto failed = count(Verdict::kFailed);
    if (rows_.empty()) return unknown_case();
    if (is_json_) {
      fmt::print("{}\n", json());
    } else {
      fmt::print("{} cases hold, {} failed, {} were skipped\n", count(Verdict::kPassed), failed,
                 count(Verdict::kSkipped));
    }
    return failed > 0 ? kBroken : kHeld;
  }

 private:
  int unknown_case() const {
    std::string names;
    for (const std::string& name : known_) names += cat(names.empty() ? "" : ", ", name);
    return usage(cat("--case: expected one of ", names, ", found none of them"));
  }
  static void show(const Row& row) {
    fmt::print("  {:8}{:18}{}\n", word(row.outcome.verdict), row.name, row.about);
    if (!row.outcome.text.empty()) fmt::print("  {:26}{}\n", "", base::printable(row.outcome.text));
    std::fflush(stdout);
  }

  std::string json() const {
    base::JsonWriter out;
    out.begin_object().member("module", job_.module).key("cases").begin_array();
    for (const Row& row : rows_) {
      out.begin_object().member("plugin", row.plugin).member("input", row.input);
      out.member("case", row.name).member("about", row.about);
      out.member("verdict", std::string(word(row.outcome.verdict) == std::string("FAILED")
                                            ? "failed"
                                            : word(row.outcome.verdict)));
      out.member("text", row.outcome.text).end_object();
    }
    out.end_array().end_object();
    return std::move(out).take();
  }

  const Job& job_;
  const std::vector<std::string> only_;
  const bool is_json_;
  std::vector<Row> rows_;
  std::set<std::string> known_;  // names of cases
};

Result<test::OptionValues> parse_options(const std::vector<std::string>& given) {
  test::OptionValues out;
  for (const std::string& text : given) {
    const size_t equals = text.find('=');
    if (equals == std::string::npos)
      return invalid(cat("--option: expected NAME=VALUE, found ", text));
    out.emplace_back(text.substr(0, equals), text.substr(equals + 1));
  }
  return out;
}

int validate(const Job& job, const std::vector<std::string>& only, bool is_json) {
  std::vector<Sample> samples;
  for (const std::string& path : job.corpus) {
    auto sample = read_sample(path);
    if (!sample) return usage(sample.error().message);
    samples.push_back(*std::move(sample));
  }
  Table table(job, only, is_json);
  table.run(job.module, "", module_cases(job));
  for (const PluginName& plugin : names_of(job)) {
    if (plugin.kind == XD_WRITER) {
      table.run(plugin.id, "", writer_cases(job, plugin.id));
      continue;
    }
    table.run(plugin.id, "", probe_cases(job, plugin.id));
    for (const Sample& sample : samples)
      table.run(plugin.id, sample.path, reader_cases(job, plugin.id, sample));
  }
  return table.finish();
}

int run(int argc, char** argv) {
  Job job;
  std::vector<std::string> options, only;
  int64_t seconds = 0, samples = 0;
  po::options_description shown("options");
  shown.add_options()  //
      ("option", po::value(&options)->composing()->value_name("NAME=VALUE"),
       "an option of the library's plugins (repeatable)")  //
      ("case", po::value(&only)->composing()->value_name("NAME"),
       "only this case (repeatable)")  //
      ("timeout", po::value(&seconds)->value_name("SECONDS")->default_value(60),
       "of one case")  //
      ("samples", po::value(&samples)->value_name("N")->default_value(200),
       "truncations, flips and failing calls that are tried of one input")                     //
      ("seed", po::value(&job.seed)->value_name("N")->default_value(1), "of what is sampled")  //
      ("json", po::bool_switch(), "a list of all cases, for programs")                         //
      ("help,h", po::bool_switch(), "this text")                                               //
      ("version", po::bool_switch(), "the version");
  po::options_description all;
  all.add(shown).add_options()("module", po::value(&job.module))(
      "corpus", po::value(&job.corpus)->composing());
  po::positional_options_description positions;
  positions.add("module", 1).add("corpus", -1);
  po::variables_map values;
  const int style = po::command_line_style::unix_style & ~po::command_line_style::allow_guessing;
  po::store(
      po::command_line_parser(argc, argv).options(all).positional(positions).style(style).run(),
      values);
  po::notify(values);
  if (values["help"].as<bool>()) {
    std::ostringstream text;
    text << kHelp << '\n' << shown;
    fmt::print("{}", text.str());
    return kHeld;
  }
  if (values["version"].as<bool>()) {
    fmt::print("crossdock-validate {}\n", CROSSDOCK_VERSION);
    return kHeld;
  }
  if (job.module.empty()) return usage("expected a plugin library (NAME.xd.so), found none");
  constexpr int64_t kMost = 1'000'000;
  if (seconds < 1 || samples < 1 || seconds > kMost || samples > kMost)
    return usage("--timeout, --samples: expected a number of 1 to 1000000");
  job.seconds = static_cast<unsigned>(seconds);
  job.samples = static_cast<size_t>(samples);
  if (auto readable = exported_symbols(job.module); !readable)
    return usage(cat(job.module, ": ", readable.error().message));
  auto parsed = parse_options(options);
  if (!parsed) return usage(parsed.error().message);
  job.options = *std::move(parsed);
  return validate(job, only, values["json"].as<bool>());
}

}  // namespace

}  // namespace crossdock::validate

int main(int argc, char** argv) {
  try {
    return crossdock::validate::run(argc, argv);
  } catch (const std::exception& e) {
    return crossdock::validate::usage(e.what());
  }
}
