// SPDX-License-Identifier: Apache-2.0
#include "apps/command/inspect_args.h"

#include "core/base/text.h"
#include "core/convert/inspect.h"
#include "core/model/dump.h"

#include <fstream>
#include <sstream>

namespace crossdock::app {

namespace {

using manifest::Manifest;
using Request = InspectArgs;

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

std::vector<OptionGroup> inspect_options(const plugin::Registry& registry,
                                         const std::vector<const plugin::Plugin*>&) {
  Request request;
  const auto options = std::make_shared<po::options_description>();
  const auto reading = std::make_shared<po::options_description>();
  add_common(*options, request);
  for (const plugin::Plugin& p : registry.plugins()) {
    if (p.is_reader()) add_flags(*reading, p.desc.options, *options);
  }
  return {{"Options", options}, {"Reading", reading}};
}

std::vector<std::string> inspect_flags() {
  po::options_description options;
  Request request;
  add_common(options, request);
  return names(options);
}

Result<InspectArgs> parse_inspect(const std::vector<std::string>& args, const Session& session) {
  InspectArgs out;
  po::options_description options("Options", kHelpWidth), reading("Reading", kHelpWidth);
  add_common(options, out);
  for (const plugin::Plugin& p : session.registry().plugins()) {
    if (p.is_reader()) add_flags(reading, p.desc.options, options);
  }
  if (!reading.options().empty()) options.add(reading);
  try {
    const po::variables_map values = parse(args, options, {"source"});
    if (values.count("help")) {
      std::ostringstream text;
      text << kInspectHelp << options;
      out.help = text.str();
      return out;
    }
    if (!values.count("source")) return invalid("expected SRC");
    out.open.dequant_dtype = given_dequant_dtype(values);
    out.source = values["source"].as<std::string>();
    if (out.digest.empty()) out.digest = out.json && !out.stats ? "sha256" : "none";
    if (out.digest != "none" && out.digest != "tree" && out.digest != "sha256")
      return invalid("--digest: expected tree, sha256 or none");
    out.progress = check_work_flags(values, out.threads);
    for (const plugin::Plugin& p : session.registry().plugins()) {
      if (p.is_reader()) out.open.reader_options.merge(given_options(values, p.desc.options));
    }
  } catch (const po::error& e) {
    return invalid(e.what());
  }
  return out;
}

Result<void> look_at(Session& session, const InspectArgs& args, const std::atomic<bool>& cancelled,
                     const std::function<void(const std::string&)>& note,
                     const std::function<void(uint64_t done, uint64_t total)>& progress,
                     Looked& out) {
  // What the file holds is shown under its own names when the rules make no model of it.
  XD_TRY(verify::open_in(session.host(), session.registry(), args.source, args.open, note,
                         out.opened));
  convert::TensorSource& tensors = *out.opened.tensors;
  if (args.digest != "none") {
    const auto kind =
        args.digest == "sha256" ? convert::DigestKind::kSha256 : convert::DigestKind::kTree;
    XD_TRY_SET(out.values.digests,
               convert::digest_tensors(tensors, kind, args.threads, cancelled, progress));
  }
  if (args.stats) {
    XD_TRY_SET(out.values.statistics,
               verify::take_statistics({session.host().memory(), args.threads, cancelled, progress},
                                       tensors));
  }
  if (!args.manifest_path.empty())
    XD_TRY(write_manifest(tensors.manifest(), out.opened.model->input(), args.manifest_path));
  return {};
}

}  // namespace crossdock::app
