// SPDX-License-Identifier: Apache-2.0
#include "apps/command/convert_args.h"

#include "core/base/text.h"

#include <boost/filesystem/operations.hpp>

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <set>
#include <sstream>

namespace crossdock::app {

namespace {

namespace fs = boost::filesystem;
using Words = std::vector<std::string>;

// Flags of a run that no other verb takes.
constexpr const char* kConvertOnly[] = {"part", "restart", "no-resume", "dry-run"};

struct Flags {
  po::options_description job{"Job", kHelpWidth};
  po::options_description run{"The run, which makes no difference to the result", kHelpWidth};
  po::options_description target{"The model in the job", kHelpWidth};
  po::options_description reader{"Reading", kHelpWidth};
  po::options_description writer{"Writing", kHelpWidth};

  // As the caller must see them, all groups in one.
  po::options_description all() const {
    po::options_description out = result();
    return out.add(run);
  }
  // Those that say what is made.
  po::options_description result() const {
    po::options_description out("", kHelpWidth);
    out.add(job).add(target);
    if (!reader.options().empty()) out.add(reader);
    if (!writer.options().empty()) out.add(writer);
    return out;
  }
};

void add_common(Flags& flags, const plugin::Registry& registry, convert::Request& r) {
  const std::string to = "format to write: " + registry.formats(XD_WRITER);
  const std::string from = "format to read: " + registry.formats(XD_READER) + " or auto";
  flags.job.add_options()("help,h", "print this")                                              //
      ("to", po::value(&r.to)->value_name("FORMAT"), to.c_str())                               //
      ("from", po::value(&r.from)->value_name("FORMAT")->default_value("auto"), from.c_str())  //
      ("config", po::value(&r.config)->value_name("DIR"),
       "take config.json and the tokenizer of this folder, or of org/name in the local Hugging "
       "Face cache, for a checkpoint that a training job saved without them")  //
      ("allow-case-collisions", po::bool_switch(&r.allow_case_collisions),
       "write names that differ in the case of letters only, which not every disk tells apart");
  flags.run.add_options()                                                           //
      ("dry-run", po::bool_switch(&r.dry_run), "print the plan and write nothing")  //
      ("overwrite", po::bool_switch(&r.overwrite),
       "replace DST if its own report lists everything in it")  //
      ("memory", po::value<Size>()->value_name("SIZE")->default_value({1u << 30}),
       "budget for all buffers")  //
      ("threads",
       po::value(&r.threads)->value_name("N")->default_value(default_threads(), "all cores"),
       "worker threads")  //
      ("part", po::value<std::string>()->value_name("i/n|auto"),
       "make a share of the files only, with other processes that make the others, on one file "
       "system: part i of n, from 0; auto: as Slurm, Open MPI, PMI, torchrun or Kubernetes say. "
       "Who "
       "finds all files there publishes; so does crossdock commit DST")  //
      ("restart", po::bool_switch(),
       "clear what an earlier run left in DST.partial, whatever it is, and begin anew")   //
      ("no-resume", po::bool_switch(), "the same, and leave nothing when the run fails")  //
      ("no-sync",
       "do not wait for the disk at the end: after a power cut DST may be incomplete")  //
      ("report", po::value<std::string>()->value_name("FILE"),
       "write the report here too (it is always DST/crossdock.json)")  //
      ("progress", po::value<std::string>()->value_name(kProgressStyles)->default_value("auto"),
       "how progress is shown; json: a line for each event, on stderr")  //
      ("log-level", po::value<std::string>()->value_name(kLogLevels)->default_value("warn"),
       "messages to show while it runs: of this level and above")  //
      ("trace", po::value<std::string>()->value_name("FILE"),
       "write what each thread did when, for ui.perfetto.dev or chrome://tracing")  //
      ("verify", po::bool_switch(),
       "read all that was written, and the source once more, and compare digests and every value "
       "before DST appears")  //
      ("force", po::bool_switch(&r.force),
       "begin though disk, inodes or memory will not be enough")  //
      ("plugin-path", po::value<Words>()->composing()->value_name("DIR"),
       "look for plugins here first (repeatable)");
  add_rule_flags(flags.target, r.rules, r.keep_unmatched);
  add_dequant_flag(flags.target);
  const auto take_names = [&r](const std::string& names) {
    if (names != "module" && names != "file" && names != "auto")
      throw po::error("--names: expected module, file or auto, found " + names);
    if (names != "auto") r.names = names == "file" ? rules::Names::kFile : rules::Names::kModule;
  };
  flags.target.add_options()  //
      ("names",
       po::value<std::string>()
           ->value_name("module|file")
           ->default_value("auto")
           ->notifier(take_names),
       "names and shapes of the running class of transformers 5 (experts stacked), or of Hugging "
       "Face's files (one by one); auto: those that the format has")  //
      ;
  flags.target.add_options()  //
      ("target", po::value(&r.target.description)->value_name("FILE"),
       "a description of the job's module, from `python -m crossdock_manifest describe`: checks "
       "names and shapes, and "
       "tells order, tied names, buffers and optimizer groups")  //
      ("param-groups",
       po::value(&r.target.param_groups)
           ->value_name("single|hf-trainer|FILE")
           ->default_value("single"),
       "the optimizer's groups of the job without --target: one, the Hugging Face Trainer's two "
       "(decay, no decay), or "
       "those of a file of ParamGroups as in rules.proto")  //
      ("strip-prefix", po::value(&r.target.strip_prefix)->value_name("TEXT"),
       "take this off the beginning of names")  //
      ("rename", po::value(&r.target.renames)->composing()->value_name("FROM=TO"),
       "then replace every match of the regular expression FROM in names ($1 for groups; "
       "repeatable); FROM ends at the "
       "first '=' outside of parentheses and brackets, write \\= for one that belongs to it")  //
      ("add-prefix", po::value(&r.target.add_prefix)->value_name("TEXT"),
       "then put this in front of names")  //
      ("ignore-config-mismatch", po::bool_switch(&r.target.ignore_config_mismatch),
       "convert though parameters of config.json's class lack, or sizes or the number of layers "
       "differ from it")  //
      ("trainable", po::value(&r.target.trainable)->composing()->value_name("REGEX"),
       "train only parameters whose names match (repeatable)")  //
      ("frozen", po::value(&r.target.frozen)->composing()->value_name("REGEX"),
       "do not train parameters whose names match (repeatable)");
}

// A wrong value is a matter of usage, so it is found before the job begins. (The job checks again:
// it has other callers.)
Result<void> check_options(const plugin::Plugin& writer,
                           const std::vector<const plugin::Plugin*>& readers,
                           const convert::Request& request) {
  XD_TRY(plugin::CheckedOptions::check(writer.desc.options, request.writer_options));
  if (request.from != "auto") {
    XD_TRY(plugin::CheckedOptions::check(readers[0]->desc.options, request.reader_options));
    return {};
  }
  // Not chosen yet: what was given must be right for each that has such an option.
  for (const plugin::Plugin* reader : readers) {
    for (auto option = reader->desc.options; option && *option; ++option) {
      const xd_option_desc* const schema[] = {*option, nullptr};
      if (request.reader_options.contains((*option)->name))
        XD_TRY(plugin::CheckedOptions::check(schema, request.reader_options));
    }
  }
  return {};
}

// With --from auto the reader is not known yet, so every reader's flags are taken.
std::vector<const plugin::Plugin*> possible_readers(const plugin::Registry& registry,
                                                    const std::string& from) {
  std::vector<const plugin::Plugin*> readers;
  for (const plugin::Plugin& p : registry.plugins()) {
    if (p.is_reader() && (from == "auto" || &p == registry.find_reader(from)))
      readers.push_back(&p);
  }
  return readers;
}

std::string help_text(const po::options_description& all, bool has_writer) {
  std::ostringstream out;
  out << kConvertHelp << all;
  if (!has_writer) out << "\n--to FORMAT --help shows that format's own options too.\n";
  return out.str();
}

Result<void> check_words(const po::variables_map& values, const convert::Request& request,
                         const plugin::Registry& registry) {
  if (!values.count("source") || !values.count("destination"))
    return invalid("expected SRC and DST");
  if (request.to.empty())
    return invalid(cat("expected --to FORMAT: one of ", registry.formats(XD_WRITER)));
  if (!registry.find_writer(request.to))
    return invalid(
        cat("--to: expected one of ", registry.formats(XD_WRITER), ", found ", request.to));
  if (possible_readers(registry, request.from).empty())
    return invalid(cat("--from: expected auto or one of ", registry.formats(XD_READER), ", found ",
                       request.from));
  if (!values["param-groups"].defaulted() && !request.target.description.empty())
    return invalid(
        "--param-groups: the file of --target tells the groups: leave one of the two out");
  return {};
}

Result<void> read_resume(const po::variables_map& values, convert::Request& request) {
  const bool restarts = values["restart"].as<bool>(), is_off = values["no-resume"].as<bool>();
  if (is_off || restarts)
    request.resume = is_off ? convert::Resume::kOff : convert::Resume::kRestart;
  if (!values.count("part")) return {};
  if (is_off || restarts)
    return invalid(
        cat(is_off ? "--no-resume" : "--restart",
            ": expected to be the only process, found --part: what other parts have done "
            "would be cleared; crossdock clean DST does it before they begin"));
  request.shared = true;
  const std::string part = values["part"].as<std::string>();
  XD_TRY_SET(request.part, part == "auto" ? convert::find_part([](const char* name) {
               return static_cast<const char*>(std::getenv(name));
             })
                                          : convert::parse_part(part));
  return {};
}

// Flags whose values are paths, or may be.
std::set<std::string> file_flags(const plugin::Plugin& writer,
                                 std::vector<const plugin::Plugin*> plugins) {
  std::set<std::string> out{"config", "target", "param-groups", "rules"};
  plugins.push_back(&writer);
  for (const plugin::Plugin* plugin : plugins) {
    for (auto option = plugin->desc.options; option && *option; ++option) {
      if (std::string((*option)->type) == "file") out.insert((*option)->name);
    }
  }
  return out;
}

// The words that were given for `options`, so that the same can be asked for again from any folder:
// paths are absolute.
Words arguments(const po::variables_map& values, const po::options_description& options,
                const std::set<std::string>& files) {
  Words out;
  for (const std::string& name : names(options)) {
    if (!values.count(name) || values[name].defaulted()) continue;
    const boost::any& value = values[name].value();
    Words given;
    if (const auto* text = boost::any_cast<std::string>(&value)) given = {*text};
    if (const auto* list = boost::any_cast<Words>(&value)) given = *list;
    if (boost::any_cast<bool>(&value)) out.push_back("--" + name);
    for (const std::string& one : given) {
      boost::system::error_code ec;
      const bool is_path = files.contains(name) && fs::exists(one, ec);
      out.push_back(cat("--", name, "=", is_path ? fs::absolute(one).string() : one));
    }
  }
  return out;
}

}  // namespace

std::vector<OptionGroup> convert_options(const plugin::Registry& registry,
                                         const std::vector<const plugin::Plugin*>& writers) {
  Flags flags;
  convert::Request request;
  add_common(flags, registry, request);
  for (const plugin::Plugin& p : registry.plugins()) {
    if (p.is_reader()) add_flags(flags.reader, p.desc.options, flags.target);
  }
  std::vector<OptionGroup> out;
  const auto add = [&out](const char* caption, const po::options_description& options) {
    out.push_back({caption, std::make_shared<po::options_description>(options)});
  };
  add("Job", flags.job);
  add("The model in the job", flags.target);
  add("Reading", flags.reader);
  for (const plugin::Plugin* writer : writers) {
    po::options_description options;
    add_flags(options, writer->desc.options, flags.reader);
    out.push_back({cat("Writing, with --to ", writer->format()),
                   std::make_shared<po::options_description>(options)});
  }
  add("The run, which makes no difference to the result", flags.run);
  return out;
}

std::vector<OptionGroup> run_options(const plugin::Registry& registry,
                                     const std::vector<const plugin::Plugin*>&) {
  Flags flags;
  convert::Request request;
  add_common(flags, registry, request);
  po::options_description options;
  for (const auto& option : flags.run.options()) {
    const auto is_same = [&](const char* name) { return option->long_name() == name; };
    if (std::none_of(std::begin(kConvertOnly), std::end(kConvertOnly), is_same))
      options.add(option);
  }
  return {{"Options", std::make_shared<po::options_description>(options)}};
}

std::vector<std::string> convert_flags() {
  Flags flags;
  convert::Request request;
  add_common(flags, plugin::Registry(), request);
  return names(flags.all());
}

Words run_flags() {
  Flags flags;
  convert::Request request;
  add_common(flags, plugin::Registry(), request);
  return names(flags.run);
}

Result<std::string> parse_run_words(const Words& args) {
  Flags flags;
  convert::Request request;
  add_common(flags, plugin::Registry(), request);
  try {
    const po::variables_map values = parse(args, flags.run, {"destination"});
    if (!values.count("destination")) return invalid("expected DST");
    for (const char* other : kConvertOnly) {
      if (values.count(other) && !values[other].defaulted())
        return invalid(cat("--", other, " is for convert"));
    }
    return values["destination"].as<std::string>();
  } catch (const po::error& e) {
    return invalid(e.what());
  }
}

Result<ConvertArgs> parse_convert(const Words& args, const Session& session) {
  const plugin::Registry& registry = session.registry();
  ConvertArgs out;
  convert::Request& request = out.request;
  Flags flags;
  add_common(flags, registry, request);
  const std::string from = peek(args, "--from", "auto"), to = peek(args, "--to", "");
  const plugin::Plugin* writer = registry.find_writer(to);
  const auto readers = possible_readers(registry, from);
  for (const plugin::Plugin* reader : readers)
    add_flags(flags.reader, reader->desc.options, flags.target);
  if (writer) add_flags(flags.writer, writer->desc.options, flags.reader);
  const po::options_description all = flags.all();
  try {
    const po::variables_map values = parse(args, all, {"source", "destination"});
    if (values.count("help")) {
      out.help = help_text(all, writer != nullptr);
      return out;
    }
    XD_TRY(check_words(values, request, registry));
    out.progress = check_work_flags(values, request.threads);
    out.log_level = values["log-level"].as<std::string>();
    check_choice("log-level", kLogLevels, out.log_level);
    request.source = values["source"].as<std::string>();
    request.destination = values["destination"].as<std::string>();
    request.memory = values["memory"].as<Size>().bytes;
    request.dequant_dtype = given_dequant_dtype(values);
    request.sync = !values.count("no-sync");
    XD_TRY(read_resume(values, request));
    request.writer_options = given_options(values, writer->desc.options);
    for (const plugin::Plugin* reader : readers)
      request.reader_options.merge(given_options(values, reader->desc.options));
    XD_TRY(check_options(*writer, readers, request));
    request.arguments = arguments(values, flags.result(), file_flags(*writer, readers));
    out.verify = values["verify"].as<bool>();
    if (values.count("trace")) out.trace = values["trace"].as<std::string>();
    request.trace = !out.trace.empty();
    if (values.count("report")) out.report_copy = values["report"].as<std::string>();
  } catch (const po::error& e) {
    return invalid(e.what());
  }
  return out;
}

}  // namespace crossdock::app
