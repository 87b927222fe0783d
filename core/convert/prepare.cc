#include "core/convert/prepare.h"

#include "core/base/text.h"
#include "core/convert/source_hints.h"
#include "core/convert/tied.h"
#include "core/io/paths.h"
#include "core/model/config.h"
#include "core/model/config_check.h"
#include "core/model/describe.h"
#include "core/model/param_groups.h"
#include "core/model/refusals.h"
#include "core/model/rules.h"

#include <boost/filesystem/operations.hpp>

#include <optional>
#include <utility>

namespace crossdock::convert {

namespace fs = boost::filesystem;
using manifest::Manifest;

namespace {

std::string in_brackets(const std::string& text) {
  return text.empty() ? "" : cat(" (", text, ")");
}

Result<void> check_request(const Request& request) {
  if (request.memory >= kLeastMemory) return {};
  return invalid(cat("--memory: expected at least ", base::human_memory(kLeastMemory), ", found ",
                     base::human_memory(request.memory)));
}

Result<void> open_source(Session& session, Prepared& out) {
  const Request& request = session.request;
  XD_TRY_SET(auto input, io::open_input(request.source));
  XD_TRY_SET(out.destination, io::resolve_destination(request.destination));
  XD_TRY(io::check_apart(input, out.destination));
  XD_TRY_SET(out.source, OpenModel::open(session.host, session.registry, std::move(input),
                                         request.from, request.reader_options));
  XD_TRY_SET(Manifest m, out.source->describe());
  XD_TRY_SET(auto laid_out, layout::lay_out(request.layout, reader_of(*out.source), m));
  session.notes.add(out.source->notes());
  session.notes.add(std::move(laid_out.notes));
  out.metadata = std::exchange(m.source.metadata, {});
  out.tensors =
      std::make_unique<TensorSource>(*out.source, std::move(m), std::move(laid_out.expressions));
  const fs::path& root = out.source->input().root();
  if (boost::system::error_code ec;
      !fs::is_directory(root, ec) && fs::exists(root.parent_path() / "config.json", ec)) {
    session.notes.add(
        cat("SRC is one file, so the config.json and tokenizer beside it were not read: name the "
            "folder ",
            root.parent_path().string(), " to use them."));
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

// What a conversion without a description of the job's module must be sure of itself: that this is
// a whole model, and the one that config.json speaks of. Names of old that the class has no longer
// are renamed by its rule.
Result<void> check_plain_model(Session& session, const Manifest& renamed,
                               model::TargetOptions& options) {
  XD_TRY(model::refuse_adapters(renamed));
  XD_TRY(model::refuse_moments(renamed));
  XD_TRY(model::refuse_ungathered(renamed));
  XD_TRY(
      model::check_against_config(plugin::rule_folders(), renamed, options.ignore_config_mismatch));
  // Names that the user changed are the job's own, and need not be those of the class.
  const bool renames =
      !options.renames.empty() || !options.add_prefix.empty() || !options.strip_prefix.empty();
  if (options.ignore_config_mismatch || renames) return {};
  auto names = model::check_parameters(plugin::rule_folders(), renamed);
  if (!names) {
    return Error{names.error().code,
                 cat(names.error().message, in_brackets(model::wrapper_hint(renamed)),
                     "; if the model lacks it on purpose, say --ignore-config-mismatch")};
  }
  options.rule_renames = std::move(names->renames);
  const std::string architecture = model::model_class(renamed).architecture;
  if (!names->is_known && !architecture.empty()) {
    session.notes.add(
        cat("The names are those of the files: there is no rule for the module of ", architecture,
            ", whose names in transformers 5 may be others. --target compares them."));
  }
  return {};
}

// What the rules say of the job's module; adds their renames to the job's.
Result<Manifest> describe_by_rules(const std::string& to, const Manifest& renamed,
                                   model::TargetOptions& options) {
  auto found = model::describe_by_rules(plugin::rule_folders(), renamed);
  if (!found) {
    return Error{found.error().code,
                 cat("--to ", to, " must know the job's module: ", found.error().message,
                     in_brackets(model::wrapper_hint(renamed)),
                     "; or describe it by `python -m crossdock_manifest describe MODEL -o "
                     "target.pb` and give that "
                     "with --target target.pb")};
  }
  XD_TRY(model::add_param_groups(options.param_groups, found->no_decay, found->module));
  options.rule_renames = std::move(found->renames);
  return std::move(found->module);
}

// The job's module, by its description or by the rules; nothing when neither is there and the
// writer can do without.
Result<std::optional<Manifest>> find_module(Session& session, const Prepared& prepared,
                                            model::TargetOptions& options) {
  std::optional<Manifest> module;
  if (!options.description.empty()) {
    XD_TRY_SET(module, model::read_description(options.description));
    return module;
  }
  Manifest renamed = prepared.target;  // the rules know the job's names
  std::vector<std::string> early;      // apply_target says them again
  XD_TRY(model::apply_target(options, nullptr, renamed, early));
  XD_TRY(check_plain_model(session, renamed, options));
  if (prepared.writer->desc.caps & XD_CAP_MODULE) {
    XD_TRY_SET(module, describe_by_rules(session.request.to, renamed, options));
  }
  return module;
}

}  // namespace

Result<Prepared> prepare(Session& session) {
  const Request& request = session.request;
  XD_TRY(check_request(request));
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
  XD_TRY(refuse_codes(*out.source, out.target, request.source));

  model::TargetOptions options = request.target;
  XD_TRY_SET(const auto module, find_module(session, out, options));
  std::vector<std::string> notes;
  XD_TRY(model::apply_target(options, module ? &*module : nullptr, out.target, notes));
  XD_TRY(
      leave_out_tied(*out.tensors, out.target, session.window_bytes(), session.cancelled, notes));
  session.notes.add(std::move(notes));
  return out;
}

}  // namespace crossdock::convert
