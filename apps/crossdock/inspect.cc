#include "core/convert/inspect.h"
#include "core/convert/plain_weights.h"

#include "apps/crossdock/print_model.h"
#include "apps/crossdock/progress.h"
#include "apps/crossdock/session.h"
#include "apps/crossdock/verbs.h"
#include "core/base/text.h"
#include "core/model/dump.h"

#include <fmt/format.h>

#include <fstream>
#include <iostream>

namespace crossdock::app {

namespace {

using manifest::Manifest;

Result<void> write_manifest(const Manifest& m, const std::string& path) {
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
  std::string source, from, manifest_path, digest, dequant_dtype;
  bool json = false, tensors = false, stats = false;
  unsigned threads = 1;
  plugin::GivenOptions reader_options;
  rules::RuleFiles rules;
  bool keep_unmatched = false;
};

Result<void> run(Session& session, const Request& request, Progress& progress) {
  const auto loaded = rules::RuleSet::load(request.rules);
  if (!loaded) fmt::print(stderr, "note: {}\n", loaded.error().message);
  const rules::RuleSet rules = loaded ? *loaded : rules::RuleSet();
  XD_TRY_SET(auto input, io::open_input(request.source));
  XD_TRY_SET(const auto model,
             convert::OpenModel::open(session.host(), session.registry(), std::move(input),
                                      request.from, request.reader_options));
  XD_TRY_SET(Manifest m, model->describe());
  for (const std::string& note : model->notes())
    fmt::print(stderr, "note: {}\n", base::printable(note));
  // What the file holds is shown under its own names when the rules make no model of it.
  auto laid_out = rules::lay_out(rules, request.keep_unmatched, convert::reader_of(*model), m);
  if (!laid_out) fmt::print(stderr, "note: {}\n", laid_out.error().message);
  rules::LaidOut made = laid_out ? *std::move(laid_out) : rules::LaidOut();
  const auto dtype = convert::dequant_dtype(request.dequant_dtype);
  if (const auto plain = convert::make_plain(*model, dtype, made, m); !plain)
    fmt::print(stderr, "note: {}\n", base::printable(plain.error().message));
  convert::TensorSource tensors(*model, std::move(m), std::move(made.expressions),
                                std::move(made.stored));
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
    XD_TRY(write_manifest(tensors.manifest(), request.manifest_path));
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
      ("from", po::value(&request.from)->value_name("FORMAT")->default_value("auto"),
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
  add_rule_flags(options, request.rules, request.keep_unmatched);
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
    request.dequant_dtype = given_dequant_dtype(values);
    request.source = values["source"].as<std::string>();
    if (request.digest.empty()) request.digest = request.json && !request.stats ? "sha256" : "none";
    if (request.digest != "none" && request.digest != "tree" && request.digest != "sha256")
      return usage_error("--digest: expected tree, sha256 or none", "inspect");
    check_work_flags(values, request.threads, style);
    for (const plugin::Plugin& p : session.registry().plugins()) {
      if (p.is_reader()) request.reader_options.merge(given_options(values, p.desc.options));
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
