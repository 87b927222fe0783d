// SPDX-License-Identifier: Apache-2.0
#include "core/convert/prepare.h"

#include "core/base/text.h"
#include "core/convert/make_target.h"
#include "core/convert/plain_weights.h"
#include "core/convert/source_hints.h"
#include "core/io/paths.h"
#include "core/model/refusals.h"

#include <boost/filesystem/operations.hpp>

#include <utility>

namespace crossdock::convert {

namespace fs = boost::filesystem;
using manifest::Manifest;

namespace {

Result<void> check_request(const Request& request) {
  if (request.memory >= kMinMemory) return {};
  return invalid(cat("--memory: expected at least ", base::human_memory(kMinMemory), ", found ",
                     base::human_memory(request.memory)));
}

Result<void> open_source(Session& session, Prepared& out) {
  const Request& request = session.request;
  XD_TRY_SET(auto input, io::open_input(request.source));
  if (!request.config.empty()) XD_TRY(input.take_config(request.config));
  XD_TRY_SET(out.destination, io::resolve_destination(request.destination));
  XD_TRY(io::check_apart(input, out.destination));
  auto opened = OpenModel::open(session.host, session.registry, std::move(input), request.from,
                                request.reader_options, out.writer->desc.caps);
  if (!opened && !request.config.empty() && opened.error().message.starts_with("config.json"))
    return std::move(opened).error().in(cat("--config ", base::printable(request.config)));
  XD_TRY_SET(out.source, std::move(opened));
  XD_TRY_SET(Manifest m, out.source->describe());
  XD_TRY_SET(auto laid_out,
             rules::lay_out(session.rules, request.keep_unmatched, reader_of(*out.source), m));
  if (!out.takes_codes())
    XD_TRY(make_plain(*out.source, dequant_dtype(request.dequant_dtype), laid_out, m));
  session.notes.add(out.source->notes());
  session.notes.add(std::move(laid_out.notes));
  out.metadata = std::exchange(m.source.metadata, {});
  out.tensors = std::make_unique<TensorSource>(
      *out.source, std::move(m), std::move(laid_out.expressions), std::move(laid_out.stored));
  const fs::path& root = out.source->input().root();
  if (boost::system::error_code ec; request.config.empty() && !fs::is_directory(root, ec) &&
                                    fs::exists(root.parent_path() / "config.json", ec)) {
    session.notes.add(
        cat("SRC is one file, so the config.json and tokenizer beside it were not read: name the "
            "folder ",
            root.parent_path().string(), " to use them, or give --config."));
  }
  return {};
}

Result<void> refuse_codes(const OpenModel& source, const Manifest& target,
                          const std::string& given) {
  XD_TRY(model::refuse_quantised(target));
  const std::string beside = quantisation_beside(source.input());
  if (beside.empty() || !model::has_integer_values(target)) return {};
  return unsupported(cat(
      "expected plain weights, found integers in ", given, " and ", beside,
      " beside it, which says that the model is quantised: convert from the model's bf16 or fp32 "
      "release"));
}

}  // namespace

Result<Prepared> prepare(Session& session) {
  const Request& request = session.request;
  XD_TRY(check_request(request));
  XD_TRY_SET(session.rules, rules::RuleSet::load(request.rules));
  Prepared out;
  out.writer = session.registry.find_writer(request.to);
  if (!out.writer)
    return invalid(
        cat("--to: expected one of ", session.registry.formats(XD_WRITER), ", found ", request.to));
  XD_TRY_SET(out.options,
             plugin::CheckedOptions::check(out.writer->desc.options, request.writer_options));
  XD_TRY(open_source(session, out));
  out.target = out.tensors->manifest();
  if (out.target.tensors.empty())
    return unsupported(cat("expected a model, found no tensors in ", request.source));
  if (!out.takes_codes()) XD_TRY(refuse_codes(*out.source, out.target, request.source));
  XD_TRY(make_target(session, out));
  return out;
}

}  // namespace crossdock::convert
