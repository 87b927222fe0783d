#include "core/convert/inspect.h"

#include "apps/crossdock/print_model.h"
#include "apps/crossdock/progress.h"
#include "apps/crossdock/session.h"
#include "apps/crossdock/verbs.h"
#include "core/base/text.h"
#include "core/model/dump.h"
#include "core/verify/opened.h"

#include <fmt/format.h>

#include <fstream>
#include <iostream>

namespace crossdock::app {

namespace {

using manifest::Manifest;

// With the places of its files, so that other tools can read the bytes themselves.
Result<void> write_manifest(Manifest m, const io::Input& input, const std::string& path) {
  for (manifest::File& file : m.source.files) {
    if (const io::InputEntry* entry = input.find(file.name)) file.path = entry->path.string();
  }
  std::string bytes;
  if (path.ends_with(".json")) {
    XD_TRY_SET(bytes, model::to_json(m));
  } else {
    bytes = manifest::encode(m);
  }
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  out.close();
  if (!out)
    return Error{XD_IO, cat("expected to write the manifest to ", path,
                            ", found it could not be written: check the folder")};
  return {};
}

struct Request {
  std::string source, manifest_path, digest;
  verify::OpenOptions open;
  bool json = false, tensors = false, stats = false;
  unsigned threads = 1;
};

Result<void> run(Session& session, const Request& request, Progress& progress) {
  const auto note = [](const std::string& text) {
    fmt::print(stderr, "note: {}\n", base::printable(text));
  };
  // What the file holds is shown under its own names when the rules make no model of it.
  verify::Opened opened;
  XD_TRY(verify::open_in(session.host(), session.registry(), request.source, request.open, note,
                         opened));
  convert::TensorSource& tensors = *opened.tensors;
  Values values;
  if (request.digest != "none") {
    const auto kind =
        request.digest == "sha256" ? convert::DigestKind::kSha256 : convert::DigestKind::kTree;
    XD_TRY_SET(values.digests, convert::digest_tensors(tensors, kind, request.threads, cancelled,
                                                       [&](uint64_t done, uint64_t total) {
                                                         progress.update(done, total);
                                                       }));
    progress.clear();
  }
  if (request.stats) {
    XD_TRY_SET(values.statistics,
               verify::take_statistics(
                   {session.host().memory(), request.threads, cancelled,
                    [&](uint64_t done, uint64_t total) { progress.update(done, total); }},
                   tensors));
    progress.clear();
  }
  if (!request.manifest_path.empty())
    XD_TRY(write_manifest(tensors.manifest(), opened.model->input(), request.manifest_path));
  if (request.json) {
    print_json(tensors, values);
  } else if (request.tensors || request.stats || !values.digests.empty()) {
    print_tensors(tensors.manifest(), values);
  } else {
    print_summary(tensors);
  }
  return {};
}

void add_common(po::options_description& options, Request& request) {
  options.add_options()("help,h", "print this")  //
      ("from", po::value(&request.open.from)->value_name("FORMAT")->default_value("auto"),
       "format to read")                                                   //
      ("tensors", po::bool_switch(&request.tensors), "a line per tensor")  //
      ("json", po::bool_switch(&request.json),
       "tensors with sha256 digests of their values, as JSON")  //
      ("digest", po::value(&request.digest)->value_name("tree|sha256|none"),
       "digest of every tensor's values (reads them all)")  //
      ("stats", po::bool_switch(&request.stats),
       "minimum, maximum and mean of every tensor's values, NaN, Inf, and what is constant; a line "
       "at the end says what is suspicious")  //
      ("manifest", po::value(&request.manifest_path)->value_name("FILE"),
       "write the manifest: protobuf, or its JSON form to FILE.json");
  add_work_flags(options, request.threads);
  add_rule_flags(options, request.open.rules, request.open.keep_unmatched);
  add_dequant_flag(options);
}

}  // namespace

std::vector<std::string> inspect_flags() {
  po::options_description options;
  Request request;
  add_common(options, request);
  return names(options);
}

int inspect(const std::vector<std::string>& args) {
  Session session(args, 1 << 30);
  session.warn_of_refusals();
  Request request;
  po::options_description options("Options", kHelpWidth), reading("Reading", kHelpWidth);
  add_common(options, request);
  for (const plugin::Plugin& p : session.registry().plugins()) {
    if (p.is_reader()) add_flags(reading, p.desc.options, options);
  }
  if (!reading.options().empty()) options.add(reading);
  Progress::Style style{};
  try {
    const po::variables_map values = parse(args, options, {"source"});
    if (values.count("help")) {
      std::cout << "crossdock inspect SRC: what a checkpoint holds\n\n" << options;
      return kDone;
    }
    if (!values.count("source")) return usage_error("expected SRC", "inspect");
    request.open.dequant_dtype = given_dequant_dtype(values);
    request.source = values["source"].as<std::string>();
    if (request.digest.empty()) request.digest = request.json && !request.stats ? "sha256" : "none";
    if (request.digest != "none" && request.digest != "tree" && request.digest != "sha256")
      return usage_error("--digest: expected tree, sha256 or none", "inspect");
    check_work_flags(values, request.threads, style);
    for (const plugin::Plugin& p : session.registry().plugins()) {
      if (p.is_reader()) request.open.reader_options.merge(given_options(values, p.desc.options));
    }
  } catch (const po::error& e) {
    return usage_error(e.what(), "inspect");
  }
  Progress progress(style == Progress::Style::kPlain && request.json ? Progress::Style::kNone
                                                                     : style);
  const auto result = run(session, request, progress);
  return result ? kDone : fail(result.error());
}

}  // namespace crossdock::app
