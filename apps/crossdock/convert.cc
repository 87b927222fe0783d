#include "core/convert/convert.h"

#include "apps/crossdock/progress.h"
#include "apps/crossdock/session.h"
#include "apps/crossdock/verbs.h"
#include "core/base/text.h"

#include <fmt/format.h>

#include <fstream>
#include <iostream>

namespace crossdock::app {

namespace {

using Words = std::vector<std::string>;

struct Flags {
  po::options_description job{"Job", kHelpWidth};
  po::options_description target{"The model in the job", kHelpWidth};
  po::options_description reader{"Reading", kHelpWidth};
  po::options_description writer{"Writing", kHelpWidth};

  // The job's flags as the caller must see them, all groups in one.
  po::options_description all() const {
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
       "Face cache, for a checkpoint that a training job saved without them")       //
      ("dry-run", po::bool_switch(&r.dry_run), "print the plan and write nothing")  //
      ("overwrite", po::bool_switch(&r.overwrite),
       "replace DST if its own report lists everything in it")  //
      ("allow-case-collisions", po::bool_switch(&r.allow_case_collisions),
       "write names that differ in the case of letters only, which not every disk tells apart")  //
      ("memory", po::value<Size>()->value_name("SIZE")->default_value({1u << 30}),
       "budget for all buffers")  //
      ("threads", po::value(&r.threads)->value_name("N")->default_value(default_threads()),
       "worker threads")  //
      ("no-sync",
       "do not wait for the disk at the end: after a power cut DST may be incomplete")  //
      ("report", po::value<std::string>()->value_name("FILE"),
       "write the report here too (it is always DST/crossdock.json)")  //
      ("progress", po::value<std::string>()->value_name("STYLE")->default_value("auto"),
       "auto, bar, plain, json or none")  //
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

std::string moments_text(const convert::PlanSummary& s) {
  return s.moments == 0 ? "" : fmt::format(", {} moments", s.moments);
}

void print_plan(const convert::PlanSummary& s, const convert::Request& r) {
  using base::human_bytes;
  fmt::print("{}: {} in {} tensors, {} parameters ({} elements), {} buffers{}, {} left out\n",
             s.format, human_bytes(s.source_bytes), s.tensors, s.parameters,
             base::human_count(s.parameter_elems), s.buffers, moments_text(s), s.excluded);
  fmt::print("{}: {} files, about {} on disk ({} apparent), {} free\n", r.to, s.files,
             human_bytes(s.stored_bytes), human_bytes(s.apparent_bytes), human_bytes(s.free_bytes));
  fmt::print("memory: buffers of at most {} within the budget of {}, {} threads\n",
             base::human_memory(s.peak_memory), base::human_memory(r.memory), r.threads);
  if (s.stored_bytes > s.free_bytes) fmt::print("note: DST has not enough free space\n");
}

void print_notes(const convert::PlanSummary& s) {
  for (const std::string& note : s.notes) fmt::print("note: {}\n", base::printable(note));
}

Result<void> write_copy(const std::string& path, const std::string& report) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out << report;
  out.close();
  if (!out)
    return Error{XD_IO, cat("expected to write the report to ", path,
                            ", found it could not be written; it is in DST/crossdock.json")};
  return {};
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

int run(const convert::Request& request, const Session& session, Progress& progress,
        const std::string& report_copy) {
  convert::Callbacks callbacks;
  callbacks.progress = [&](uint64_t done, uint64_t total) { progress.update(done, total); };
  callbacks.phase = [&](const char* name) { progress.phase(name); };
  const auto outcome =
      convert::convert(request, session.registry(), io::Os::real(), cancelled, callbacks);
  progress.clear();
  if (!outcome) return fail(outcome.error());
  if (request.dry_run) {
    print_plan(outcome->plan, request);
    print_notes(outcome->plan);
    fmt::print("dry run: nothing was written\n");
    return kDone;
  }
  if (!report_copy.empty()) {
    if (const auto r = write_copy(report_copy, outcome->report); !r) return fail(r.error());
  }
  const convert::PlanSummary& s = outcome->plan;
  fmt::print(
      "{}: {} parameters, {} buffers{}, {} left out; {} files, {} on disk ({} apparent) in {}\n",
      request.destination, s.parameters, s.buffers, moments_text(s), s.excluded, s.files,
      base::human_bytes(s.stored_bytes), base::human_bytes(s.apparent_bytes),
      base::human_seconds(outcome->seconds));
  print_notes(s);
  return kDone;
}

}  // namespace

std::vector<std::string> convert_flags() {
  Flags flags;
  convert::Request request;
  add_common(flags, plugin::Registry(), request);
  return names(flags.all());
}

int convert(const Words& args) {
  const Session session(args, 64 << 20);
  session.warn_of_refusals();
  convert::Request request;
  Flags flags;
  add_common(flags, session.registry(), request);
  const std::string from = peek(args, "--from", "auto"), to = peek(args, "--to", "");
  const plugin::Plugin* writer = session.registry().find_writer(to);
  // With --from auto the reader is not known yet, so every reader's flags are taken.
  std::vector<const plugin::Plugin*> readers;
  for (const plugin::Plugin& p : session.registry().plugins()) {
    if (p.is_reader() && (from == "auto" || &p == session.registry().find_reader(from)))
      readers.push_back(&p);
  }
  for (const plugin::Plugin* reader : readers)
    add_flags(flags.reader, reader->desc.options, flags.target);
  if (writer) add_flags(flags.writer, writer->desc.options, flags.reader);

  const po::options_description all = flags.all();
  Progress::Style style{};
  std::string report;
  try {
    const po::variables_map values = parse(args, all, {"source", "destination"});
    if (values.count("help")) {
      std::cout << "crossdock convert SRC DST --to FORMAT [options]\n"
                   "SRC: a folder, a file or an index of shards (known by its first bytes, "
                   "whatever its name), or\n"
                   "org/name of the local Hugging Face cache. DST: a folder to make.\n"
                << all;
      if (!writer) std::cout << "\n--to FORMAT --help shows that format's own options too.\n";
      return kDone;
    }
    if (!values.count("source") || !values.count("destination"))
      return usage_error("expected SRC and DST", "convert");
    if (request.to.empty())
      return usage_error("expected --to FORMAT: one of " + session.registry().formats(XD_WRITER),
                         "convert");
    if (!writer)
      return usage_error(
          cat("--to: expected one of ", session.registry().formats(XD_WRITER), ", found ", to),
          "convert");
    if (from != "auto" && readers.empty())
      return usage_error(cat("--from: expected auto or one of ",
                             session.registry().formats(XD_READER), ", found ", from),
                         "convert");
    if (!values["param-groups"].defaulted() && !request.target.description.empty())
      return usage_error(
          "--param-groups: the file of --target tells the groups: leave one of the two out",
          "convert");
    if (request.threads == 0 || request.threads > 1024)
      return usage_error("--threads: expected 1 to 1024", "convert");
    if (!Progress::parse(values["progress"].as<std::string>(), style))
      return usage_error("--progress: expected auto, bar, plain, json or none", "convert");
    request.source = values["source"].as<std::string>();
    request.destination = values["destination"].as<std::string>();
    request.memory = values["memory"].as<Size>().bytes;
    request.dequant_dtype = given_dequant_dtype(values);
    request.sync = !values.count("no-sync");
    request.writer_options = given_options(values, writer->desc.options);
    for (const plugin::Plugin* reader : readers)
      request.reader_options.merge(given_options(values, reader->desc.options));
    if (const auto r = check_options(*writer, readers, request); !r)
      return usage_error(r.error().message, "convert");
    if (values.count("report")) report = values["report"].as<std::string>();
  } catch (const po::error& e) {
    return usage_error(e.what(), "convert");
  }
  Progress progress(style);
  return run(request, session, progress, report);
}

}  // namespace crossdock::app
