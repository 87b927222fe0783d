#include "apps/crossdock/convert_args.h"
#include "apps/crossdock/progress.h"
#include "apps/crossdock/session.h"
#include "apps/crossdock/verb.h"
#include "apps/crossdock/verbs.h"
#include "core/base/text.h"
#include "core/convert/planning.h"
#include "core/convert/prepare.h"
#include "core/io/paths.h"
#include "core/verify/folder.h"
#include "core/verify/hub.h"

#include <fmt/format.h>
#include <boost/filesystem/operations.hpp>

#include <iostream>

namespace crossdock::app {

namespace {

namespace fs = boost::filesystem;

constexpr char kHelp[] =
    R"(crossdock verify DST [--quick]         a folder that crossdock wrote, against its report
crossdock verify DST --against SRC     and every value against the source
crossdock verify org/name              a download of the Hub, against its own records; offline

DST: every file has the size and the digest that DST/crossdock.json tells, the report the digest
at its own end, and the format's reader finds the report's tensors. A file that is missing, cut
off or changed in one bit is named. Files that the report does not list are told, and are no error.

--against SRC: what DST's reader gives must be, element by element, what SRC gives under the
conversion's own flags (names, composed tensors, casts, moments). The first element that differs
is named. What of SRC the values cannot tell (headers, codes, config.json) is held against the
report's digests. Files of SRC that were not read are not looked at.

org/name, a snapshot's or a models--org--name folder, or one of `hf download --local-dir`: each
file has the size that the commit's list tells, and the SHA-256 (large files) or git's SHA-1
(small ones) that the cache knows it by. Files that were never downloaded are told, and are an
error only where an index of shards that is there names them.

Exit code: 0 all is as it should be, 1 something is not or cannot be read, 2 wrong use.

)";

struct Request {
  std::string folder, against;
  bool quick = false;
  uint64_t memory = 0;
  unsigned threads = 1;
};

std::string counts_text(const verify::Verdict& v) {
  return fmt::format("{} file{}, {}", v.n_files, v.n_files == 1 ? "" : "s",
                     base::human_bytes(v.n_bytes));
}

int print(const std::string& what, const std::string& good, const verify::Verdict& v) {
  for (const std::string& problem : v.problems) fmt::print("{}\n", base::printable(problem));
  if (v.n_problems > v.problems.size())
    fmt::print("... and {} more\n", v.n_problems - v.problems.size());
  for (const std::string& note : v.notes) fmt::print("note: {}\n", base::printable(note));
  if (v.is_good()) {
    fmt::print("{}: {} ({})\n", base::printable(what), good, counts_text(v));
    return kDone;
  }
  fmt::print("{}: {} problem{} ({})\n", base::printable(what), v.n_problems,
             v.n_problems == 1 ? "" : "s", counts_text(v));
  return kFailed;
}

verify::Reading reading_of(const Request& request, base::Memory& memory, Progress& progress) {
  return {io::Os::real(), memory, request.threads, cancelled,
          [&progress](uint64_t done, uint64_t total) { progress.update(done, total); }};
}

// What the report's writer can do, for the choice of a reader.
uint64_t caps_of(const plugin::Registry& registry, const report::Report& report) {
  for (const plugin::Plugin& p : registry.plugins()) {
    if (!p.is_reader() && p.id() == report.writer.id) return p.desc.caps;
  }
  return 0;
}

// The rules that made it.
rules::RuleFiles rules_of(const report::Report& report) {
  constexpr std::string_view kFlag = "--rules=";
  rules::RuleFiles out;
  out.folders = plugin::rule_folders();
  for (const std::string& word : report.arguments) {
    if (word.starts_with(kFlag)) out.files.push_back(word.substr(kFlag.size()));
  }
  return out;
}

Result<int> check_alone(const Request& request, const Session& session,
                        const report::Report& report, Progress& progress) {
  base::Memory memory(request.memory);
  verify::OpenOptions open;
  open.rules = rules_of(report);
  open.writer_caps = caps_of(session.registry(), report);
  const auto depth = request.quick ? verify::Depth::kQuick : verify::Depth::kFull;
  XD_TRY_SET(const auto verdict,
             verify::verify_folder(reading_of(request, memory, progress), session.registry(), open,
                                   request.folder, report, depth));
  progress.clear();
  return print(request.folder,
               request.quick ? "all sizes and tensors are there; no value was read"
                             : "as crossdock wrote it",
               verdict);
}

// The conversion is planned again, of another place where its source may lie.
Result<int> check_against(const Request& request, const Session& session,
                          const report::Report& report, Progress& progress) {
  std::vector<std::string> words{request.against, request.folder};
  words.insert(words.end(), report.arguments.begin(), report.arguments.end());
  auto parsed = parse_convert(words, session);
  if (!parsed) return std::move(parsed).error().in("the flags that the report has kept");
  parsed->request.memory = request.memory;
  parsed->request.threads = request.threads;
  convert::Session run(parsed->request, session.registry(), io::Os::real(), cancelled);
  XD_TRY_SET(convert::Prepared prepared, convert::prepare(run));
  XD_TRY_SET(const convert::Planned planned, convert::make_plan(run, prepared));
  const auto depth = request.quick ? verify::Depth::kQuick : verify::Depth::kFull;
  XD_TRY_SET(const auto verdict,
             verify::verify_against(reading_of(request, run.memory, progress),
                                    {run, prepared, planned, report}, request.folder, depth));
  progress.clear();
  return print(
      request.folder,
      fmt::format("{}equal to {}, {} tensors", request.quick ? "" : "as crossdock wrote it, and ",
                  request.against, verdict.n_tensors),
      verdict);
}

Result<int> check_download(const Request& request, const verify::Download& download,
                           Progress& progress) {
  base::Memory memory(request.memory);
  XD_TRY_SET(const auto verdict,
             verify::verify_download(reading_of(request, memory, progress), download));
  progress.clear();
  return print(download.name, "every file that is there is as the Hub has it", verdict);
}

Result<int> run(const Request& request, const Session& session, Progress& progress) {
  boost::system::error_code ec;
  const bool is_folder = fs::is_directory(request.folder, ec);
  if (!is_folder || !fs::exists(fs::path(request.folder) / io::kReportName, ec)) {
    XD_TRY_SET(const auto download, verify::find_download(request.folder));
    if (download && request.against.empty()) return check_download(request, *download, progress);
    return Error{XD_NOT_FOUND, cat("expected a folder that crossdock wrote, with ", io::kReportName,
                                   ", or a download of the Hugging Face Hub, found ",
                                   is_folder ? "neither in " : "no such folder: ",
                                   base::printable(request.folder))};
  }
  XD_TRY_SET(const auto report, verify::read_report(io::Os::real(), request.folder));
  return request.against.empty() ? check_alone(request, session, report, progress)
                                 : check_against(request, session, report, progress);
}

void add_options(po::options_description& options, Request& request) {
  options.add_options()("help,h", "print this")  //
      ("against", po::value(&request.against)->value_name("SRC"),
       "compare every value with the source: a folder, a file, or org/name of the cache")  //
      ("quick", po::bool_switch(&request.quick),
       "look at sizes and structure, and read no file for its digest")  //
      ("memory", po::value<Size>()->value_name("SIZE")->default_value({1u << 30}),
       "budget for all buffers");
  add_work_flags(options, request.threads);
}

std::vector<OptionGroup> option_groups(const plugin::Registry&,
                                       const std::vector<const plugin::Plugin*>&) {
  Request request;
  const auto options = std::make_shared<po::options_description>();
  add_options(*options, request);
  return {{"Options", options}};
}

int run_verb(const std::vector<std::string>& args) {
  Request request;
  po::options_description options("Options", kHelpWidth);
  add_options(options, request);
  Progress::Style style{};
  try {
    const po::variables_map values = parse(args, options, {"folder"});
    if (values.count("help")) {
      std::cout << kHelp << options;
      return kDone;
    }
    if (!values.count("folder")) return usage_error("expected DST or org/name", "verify");
    request.folder = values["folder"].as<std::string>();
    request.memory = given_memory(values);
    check_work_flags(values, request.threads, style);
  } catch (const po::error& e) {
    return usage_error(e.what(), "verify");
  }
  const Session session(args, 64 << 20);
  session.warn_of_refusals();
  Progress progress(style);
  const auto code = run(request, session, progress);
  progress.clear();
  return code ? *code : fail(code.error());
}

}  // namespace

constinit const Verb kVerify{
    "verify", "DST",    "whether a folder is as it was written; --against SRC compares values",
    kHelp,    run_verb, option_groups};

}  // namespace crossdock::app
