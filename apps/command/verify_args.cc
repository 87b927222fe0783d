// SPDX-License-Identifier: Apache-2.0
#include "apps/command/verify_args.h"

#include "apps/command/convert_args.h"
#include "core/base/text.h"
#include "core/convert/planning.h"
#include "core/convert/prepare.h"
#include "core/io/paths.h"
#include "core/verify/folder.h"
#include "core/verify/hub.h"

#include <fmt/format.h>
#include <boost/filesystem/operations.hpp>

#include <sstream>
#include <utility>

namespace crossdock::app {

namespace {

namespace fs = boost::filesystem;

// What checks read with, but for the budget.
struct Reader {
  unsigned threads;
  const std::atomic<bool>& cancelled;
  const OnBytes& progress;

  verify::Reading with(base::Memory& memory) const {
    return {io::Os::real(), memory, threads, cancelled, progress};
  }
};

Checked checked(std::string what, std::string good, verify::Verdict verdict) {
  return {std::move(what), std::move(good), std::move(verdict)};
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

Result<Checked> check_alone(const VerifyArgs& request, const Session& session,
                            const report::Report& report, const Reader& reader) {
  base::Memory memory(request.memory);
  verify::OpenOptions open;
  open.rules = rules_of(report);
  open.writer_caps = caps_of(session.registry(), report);
  const auto depth = request.quick ? verify::Depth::kQuick : verify::Depth::kFull;
  XD_TRY_SET(const auto verdict, verify::verify_folder(reader.with(memory), session.registry(),
                                                       open, request.folder, report, depth));
  return checked(request.folder,
                 request.quick ? "all sizes and tensors are there; no value was read"
                               : "as crossdock wrote it",
                 verdict);
}

// The conversion is planned again, of another place where its source may lie.
Result<Checked> check_against(const VerifyArgs& request, const Session& session,
                              const report::Report& report, const Reader& reader) {
  std::vector<std::string> words{request.against, request.folder};
  words.insert(words.end(), report.arguments.begin(), report.arguments.end());
  auto parsed = parse_convert(words, session);
  if (!parsed) return std::move(parsed).error().in("the flags that the report has kept");
  parsed->request.memory = request.memory;
  parsed->request.threads = request.threads;
  convert::Session run(parsed->request, session.registry(), io::Os::real(), reader.cancelled);
  XD_TRY_SET(convert::Prepared prepared, convert::prepare(run));
  XD_TRY_SET(const convert::Planned planned, convert::make_plan(run, prepared));
  const auto depth = request.quick ? verify::Depth::kQuick : verify::Depth::kFull;
  XD_TRY_SET(const auto verdict,
             verify::verify_against(reader.with(run.memory), {run, prepared, planned, report},
                                    request.folder, depth));
  return checked(
      request.folder,
      fmt::format("{}equal to {}, {} tensors", request.quick ? "" : "as crossdock wrote it, and ",
                  request.against, verdict.n_tensors),
      verdict);
}

Result<Checked> check_download(const VerifyArgs& request, const verify::Download& download,
                               const Reader& reader) {
  base::Memory memory(request.memory);
  XD_TRY_SET(const auto verdict, verify::verify_download(reader.with(memory), download));
  return checked(download.name, "every file that is there is as the Hub has it", verdict);
}

Result<Checked> run(const VerifyArgs& request, const Session& session, const Reader& reader) {
  boost::system::error_code ec;
  const bool is_folder = fs::is_directory(request.folder, ec);
  if (!is_folder || !fs::exists(fs::path(request.folder) / io::kReportName, ec)) {
    XD_TRY_SET(const auto download, verify::find_download(request.folder));
    if (download && request.against.empty()) return check_download(request, *download, reader);
    return Error{XD_NOT_FOUND, cat("expected a folder that crossdock wrote, with ", io::kReportName,
                                   ", or a download of the Hugging Face Hub, found ",
                                   is_folder ? "neither in " : "no such folder: ",
                                   base::printable(request.folder))};
  }
  XD_TRY_SET(const auto report, verify::read_report(io::Os::real(), request.folder));
  return request.against.empty() ? check_alone(request, session, report, reader)
                                 : check_against(request, session, report, reader);
}

void add_options(po::options_description& options, VerifyArgs& request) {
  options.add_options()("help,h", "print this")  //
      ("against", po::value(&request.against)->value_name("SRC"),
       "compare every value with the source: a folder, a file, or org/name of the cache")  //
      ("quick", po::bool_switch(&request.quick),
       "look at sizes and structure, and read no file for its digest")  //
      ("memory", po::value<Size>()->value_name("SIZE")->default_value({1u << 30}),
       "budget for all buffers");
  add_work_flags(options, request.threads);
}

}  // namespace

std::vector<OptionGroup> verify_options(const plugin::Registry&,
                                        const std::vector<const plugin::Plugin*>&) {
  VerifyArgs request;
  const auto options = std::make_shared<po::options_description>();
  add_options(*options, request);
  return {{"Options", options}};
}

Result<VerifyArgs> parse_verify(const std::vector<std::string>& args) {
  VerifyArgs out;
  po::options_description options("Options", kHelpWidth);
  add_options(options, out);
  try {
    const po::variables_map values = parse(args, options, {"folder"});
    if (values.count("help")) {
      std::ostringstream text;
      text << kVerifyHelp << options;
      out.help = text.str();
      return out;
    }
    if (!values.count("folder")) return invalid("expected DST or org/name");
    out.folder = values["folder"].as<std::string>();
    out.memory = given_memory(values);
    out.progress = check_work_flags(values, out.threads);
  } catch (const po::error& e) {
    return invalid(e.what());
  }
  return out;
}

Result<Checked> check(const VerifyArgs& args, const Session& session,
                      const std::atomic<bool>& cancelled, const OnBytes& progress) {
  return run(args, session, {args.threads, cancelled, progress});
}

Result<void> check_made(const convert::Unpublished& made, const std::atomic<bool>& cancelled,
                        const OnBytes& progress) {
  const verify::Reading reading{io::Os::real(), made.session.memory, made.session.request.threads,
                                cancelled, progress};
  auto result = verify::check_written(
      reading, {made.session, made.prepared, made.planned, made.report}, made.folder);
  return result ? std::move(result) : std::move(result).error().in("--verify");
}

}  // namespace crossdock::app
