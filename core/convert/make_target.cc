// SPDX-License-Identifier: Apache-2.0
#include "core/convert/make_target.h"

#include "core/base/text.h"
#include "core/convert/tied.h"
#include "core/convert/training_state.h"
#include "core/model/config.h"
#include "core/model/describe.h"
#include "core/model/refusals.h"
#include "core/rules/class_names.h"
#include "core/rules/config_check.h"
#include "core/rules/module.h"
#include "core/rules/param_groups.h"

#include <algorithm>
#include <optional>
#include <set>
#include <string_view>
#include <unordered_map>
#include <utility>

namespace crossdock::convert {

using manifest::Manifest;

namespace {

std::string in_brackets(const std::string& text) {
  return text.empty() ? "" : cat(" (", text, ")");
}

// How the user compares names that no rule was held against.
constexpr std::string_view kDescribe =
    "A description of the job's module compares them: `python -m crossdock_manifest describe MODEL "
    "-o target.pb`, then --target target.pb.";

// Whether the user gives the job's own names, which need not be the class's. To strip a wrapper's
// prefix is not that; to strip the base class's is.
bool gives_own_names(const model::TargetOptions& options, const rules::ModuleRule* rule) {
  if (!options.renames.empty() || !options.add_prefix.empty()) return true;
  return rule && !options.strip_prefix.empty() && options.strip_prefix == rule->base_prefix();
}

// Why the names were not held against those of a class; empty where there is none to speak of, or
// the user gives names to a class that no rule describes.
std::string not_compared_note(const rules::ModuleRule* rule, bool own_names, const Manifest& m) {
  if (rule)
    return cat("The names are yours, and were not compared with those of ", rule->class_name(),
               ". ", kDescribe);
  const model::ModelClass asked = model::model_class(m);
  if (own_names || (asked.model_type.empty() && asked.architecture.empty())) return {};
  const std::string old = rules::old_names_hint(m);
  return cat("The names are those of the files, and were not compared: ",
             asked.architecture.empty()
                 ? "config.json does not name the class (architectures)"
                 : cat("there is no rule for the module of ", asked.architecture),
             ", whose names in transformers 5 may be others. ", kDescribe,
             old.empty() ? "" : cat(" transformers 5 spells some of them otherwise: ", old, "."));
}

// The model's tensors as the class has them, or as its files do.
Result<void> compose(Session& session, const rules::ModuleRule& rule, rules::Names names,
                     Prepared& prepared) {
  XD_TRY_SET(auto composed, prepared.tensors->compose(rule, names, prepared.target));
  if (composed.n_made > 0) {
    session.notes.add(
        cat(composed.n_used, " tensors became ", composed.n_made, ", as ",
            names == rules::Names::kModule ? "" : "the files of ", rule.class_name(),
            names == rules::Names::kModule ? " of transformers 5 has them." : " have them."));
  }
  prepared.tensors->take(std::move(composed), prepared.target);
  return {};
}

// Of a model whose names stay: sizes can be held against config.json all the same.
Result<void> check_sizes(const Session& session, const rules::ModuleRule* rule, const Manifest& m) {
  const bool ignores = session.request.target.ignore_config_mismatch;
  if (rule) return rules::check_against_config(*rule, m, ignores);
  XD_TRY_SET(const auto like, rules::ModuleRule::find_like(session.rules, m));
  return like ? rules::check_against_config(*like, m, ignores) : Result<void>();
}

// That all parameters of the class are there, of the sizes that config.json tells.
Result<void> check_class(const rules::ModuleRule& rule, const model::TargetOptions& options,
                         const Manifest& m) {
  XD_TRY(rules::check_against_config(rule, m, options.ignore_config_mismatch));
  if (options.ignore_config_mismatch) return {};
  auto all = rules::check_parameters(rule, m);
  if (all) return all;
  return Error{all.error().code,
               cat(all.error().message, in_brackets(model::wrapper_hint(m)),
                   "; if the model lacks it on purpose, say --ignore-config-mismatch")};
}

// Tensors that the class has not, and that nobody excludes. Files may hold more than the class.
Result<void> check_unknown(Session& session, const rules::ModuleRule& rule, rules::Names form,
                           const Manifest& m, const std::vector<uint64_t>& unknown) {
  std::vector<std::string> names;
  for (const uint64_t i : unknown) {
    if (m.tensors[i].excluded.empty()) names.push_back(m.tensors[i].target());
  }
  if (names.empty()) return {};
  const bool keeps = form == rules::Names::kFile || session.request.keep_unmatched ||
                     session.request.target.ignore_config_mismatch;
  if (!keeps) {
    return invalid(cat("expected only parameters that ", rule.class_name(), " has, found ",
                       base::printable(names[0]), in_brackets(model::wrapper_hint(m)),
                       ": use --strip-prefix, --add-prefix or --rename where only names differ, or "
                       "--keep-unmatched to write such tensors under their own names"));
  }
  session.notes.add(cat(rule.class_name(), " has no ", base::listed(names),
                        ": written as the source has them; a job of that class does not read "
                        "them."));
  return {};
}

// Gives the model the tensors and names of the class that config.json names, excludes what the
// class has not, and checks that all its parameters are there.
Result<void> apply_class(Session& session, const rules::ModuleRule& rule, bool needs_module,
                         Prepared& prepared, OneParameter& known) {
  Manifest& m = prepared.target;
  XD_TRY(compose(session, rule, rules::Names::kModule, prepared));
  std::vector<std::string> notes;
  XD_TRY(rules::give_class_names(rule, m, notes));
  session.notes.add(std::move(notes));
  known = {rules::find_tied(rule, m), rules::find_unknown(rule, m), true};
  if (needs_module)  // then what is missing is told with what else the writer could do
    return rules::check_against_config(rule, m, session.request.target.ignore_config_mismatch);
  return check_class(rule, session.request.target, m);
}

// Leaves the names of files, and gives those to tensors that the source has as the module has them.
// What the class knows of the tensors is found where they have its names.
Result<void> apply_class_of_files(Session& session, const rules::ModuleRule& rule,
                                  Prepared& prepared, OneParameter& known) {
  Manifest& m = prepared.target;
  Manifest as_module = m;
  std::vector<std::string> unsaid;
  XD_TRY(prepared.tensors->compose(rule, rules::Names::kModule, as_module));
  XD_TRY(rules::give_class_names(rule, as_module, unsaid));
  XD_TRY(check_class(rule, session.request.target, as_module));
  XD_TRY(compose(session, rule, rules::Names::kFile, prepared));
  XD_TRY(rules::give_roles(rule, m));
  std::unordered_map<std::string_view, uint64_t> by_source;
  for (uint64_t i = 0; i < m.tensors.size(); ++i) by_source.emplace(m.tensors[i].name, i);
  const auto in_files = [&](std::vector<uint64_t>& tensors) {
    std::vector<uint64_t> out;
    for (const uint64_t i : tensors) {
      const auto it = by_source.find(as_module.tensors[i].name);
      if (it != by_source.end()) out.push_back(it->second);
    }
    tensors = std::move(out);
  };
  known = {rules::find_tied(rule, as_module), rules::find_unknown(rule, as_module), true};
  in_files(known.unknown);
  for (manifest::AliasGroup& group : known.tied) in_files(group.tensors);
  std::erase_if(known.tied, [](const auto& group) { return group.tensors.size() < 2; });
  return {};
}

// The tensors that the job's own module has. A description of transformers 4's has the names of
// files, and needs no others.
Result<void> compose_described(Session& session, const rules::ModuleRule& rule,
                               const Manifest& module, Prepared& prepared) {
  std::set<std::string_view> there;
  for (const auto& t : prepared.target.tensors) there.insert(t.target());
  const auto lacks = [&](const manifest::Tensor& t) { return !there.contains(t.name); };
  if (std::none_of(module.tensors.begin(), module.tensors.end(), lacks)) return {};
  return compose(session, rule, rules::Names::kModule, prepared);
}

// The names of tied parameters, as far as the rule knows the module.
void name_tied(const rules::ModuleRule& rule, Manifest& m) {
  if (const auto module = rules::describe_module(rule, m)) model::name_module(*module, m);
}

// What the rule says of the job's module, for a writer that must know it.
Result<Manifest> describe_by_rule(const Session& session, const rules::ModuleRule* rule,
                                  const Manifest& m) {
  auto module = rule ? rules::describe_module(*rule, m) : rules::no_module_rule(m);
  if (!module) {
    return Error{module.error().code,
                 cat("--to ", session.request.to, " must know the job's module: ",
                     module.error().message, in_brackets(model::wrapper_hint(m)),
                     "; or describe it by `python -m crossdock_manifest describe MODEL -o "
                     "target.pb` and give that with --target target.pb")};
  }
  XD_TRY(rules::add_param_groups(session.request.target.param_groups, *rule, *module));
  return module;
}

}  // namespace

Result<void> make_target(Session& session, Prepared& prepared) {
  const model::TargetOptions& options = session.request.target;
  const uint64_t caps = prepared.writer->desc.caps;
  const bool needs_module = caps & XD_CAP_MODULE;
  const rules::Names names = session.request.names.value_or(
      caps & XD_CAP_FILE_NAMES ? rules::Names::kFile : rules::Names::kModule);
  Manifest& m = prepared.target;
  const bool takes_state = caps & XD_CAP_TRAINING_STATE;
  std::vector<std::string> notes;
  if (takes_state) {
    hide_optimizer_state(m);
  } else {
    leave_training_out(m, notes);
  }
  XD_TRY(model::give_names(options, m));
  std::optional<Manifest> module;
  OneParameter known;
  XD_TRY_SET(const auto found, rules::ModuleRule::find(session.rules, m));
  const rules::ModuleRule* rule = found ? &*found : nullptr;
  if (!options.description.empty()) {
    XD_TRY_SET(module, model::read_description(options.description));
    if (rule && names == rules::Names::kModule)
      XD_TRY(compose_described(session, *rule, *module, prepared));
  } else {
    if (std::string hint = model::wrapper_hint(m); !hint.empty()) session.notes.add(hint);
    XD_TRY(model::refuse_adapters(m));
    XD_TRY(model::refuse_moments(m));
    XD_TRY(model::refuse_ungathered(m));
    if (needs_module && names == rules::Names::kFile)
      return invalid(
          cat("--names file: expected a description of the job's module with --target, "
              "which --to ",
              session.request.to, " needs, found none"));
    const bool own_names = gives_own_names(options, rule);
    if (rule && names == rules::Names::kFile && !own_names) {
      XD_TRY(apply_class_of_files(session, *rule, prepared, known));
    } else if (rule && (needs_module || !own_names)) {
      XD_TRY(apply_class(session, *rule, needs_module, prepared, known));
    } else {
      XD_TRY(check_sizes(session, rule, m));
      known.tied = model::tied_embeddings(m, notes);
      if (std::string note = not_compared_note(rule, own_names, m); !note.empty())
        notes.push_back(std::move(note));
    }
    if (takes_state) module = module_of_source(m);
    if (needs_module && !module) {
      XD_TRY_SET(module, describe_by_rule(session, rule, m));
    }
  }
  XD_TRY(model::apply_module(options, module ? &*module : nullptr, m, notes));
  if (module) {
    XD_TRY(check_tied(*prepared.tensors, m, session.window_bytes(), session.cancelled));
  } else {
    XD_TRY(exclude_tied(*prepared.tensors, known, m, session.window_bytes(), session.cancelled,
                        notes));
    if (rule) XD_TRY(check_unknown(session, *rule, names, m, known.unknown));
    const bool has_class_names = names == rules::Names::kModule && !gives_own_names(options, rule);
    if (rule && has_class_names && (caps & XD_CAP_TIED_NAMES)) name_tied(*rule, m);
  }
  if (takes_state) show_optimizer_state(m);
  session.notes.add(std::move(notes));
  return {};
}

}  // namespace crossdock::convert
