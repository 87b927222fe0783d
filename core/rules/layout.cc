// SPDX-License-Identifier: Apache-2.0
#include "core/rules/layout.h"

#include "core/base/text.h"
#include "core/rules/layout_config.h"
#include "core/rules/renumber.h"
#include "core/rules/rules.pb.h"
#include "core/rules/tensor_rules.h"
#include "core/rules/variables.h"

#include <algorithm>
#include <utility>

namespace crossdock::rules {

using manifest::Manifest;

namespace {

struct Found {
  std::shared_ptr<const pb::Architecture> rule;
  const pb::Layout* layout;  // of the rule
};

// "llama" of a GGUF file: what a rule for it would ask for.
std::string architecture_of(const Manifest& m) {
  for (const auto& entry : m.source.metadata) {
    const auto* text = entry.value.get<std::string>();
    if (entry.key == "general.architecture" && text) return base::printable(*text);
  }
  return "no general.architecture";
}

// True without a name.
bool has_tensor(const Manifest& m, const std::string& name) {
  return name.empty() || std::any_of(m.tensors.begin(), m.tensors.end(),
                                     [&](const manifest::Tensor& t) { return t.name == name; });
}

// Nothing: the source is left as it is. Errors: a source that is no model, or of an architecture
// without a layout where the format's must have one.
Result<std::optional<Found>> find_layout(const rules::RuleSet& rules, bool keep_unmatched,
                                         const Manifest& m) {
  const Facts facts(m);
  const std::string format = m.source.format.substr(0, m.source.format.find('/'));
  bool must_fit = false;
  std::optional<Found> best;
  XD_TRY_SET(const Rules found, rules.with_layouts_of(format));
  for (const auto& rule : found) {
    for (const pb::Layout& layout : rule->layout()) {
      if (layout.format() != format) continue;
      must_fit = must_fit || (layout.refused().empty() && layout.if_has().empty());
      if (!all_hold(layout.when(), facts) || !has_tensor(m, layout.if_has())) continue;
      if (!layout.refused().empty())
        return unsupported(cat("expected a model, found ", layout.refused()));
      if (!best || layout.when().size() > best->layout->when().size()) best = Found{rule, &layout};
    }
  }
  if (!must_fit || best) return best;
  if (keep_unmatched) return std::optional<Found>();
  return unsupported(cat(
      "expected an architecture that there is a layout rule for, found ", architecture_of(m),
      " in ", m.source.format,
      ": write one as in docs/rules.md and give it with --rules FILE, or keep the file's own names "
      "with --keep-unmatched"));
}

// The new index of each of the source's tensors that is still there as it was.
std::vector<std::optional<uint64_t>> places_of(const std::vector<transform::Expression>& made,
                                               const Manifest& m) {
  std::vector<std::optional<uint64_t>> out(m.tensors.size());
  for (uint64_t i = 0; i < made.size(); ++i) {
    const uint64_t stored = made[i].tensors()[0];
    if (!out[stored] && made[i] == transform::stored_tensor(stored, m.tensors[stored]))
      out[stored] = i;
  }
  return out;
}

// Whether all that the training state and the module speak of stays as it is.
bool state_follows(const std::vector<std::optional<uint64_t>>& places, const Manifest& m) {
  const auto stays = [&](uint64_t i) { return places[i].has_value(); };
  const auto all_stay = [&](const manifest::ParameterGroup& group) {
    return std::all_of(group.tensors.begin(), group.tensors.end(), stays);
  };
  const auto& t = m.training;
  return std::all_of(t.groups.begin(), t.groups.end(), all_stay) &&
         std::all_of(t.moments.begin(), t.moments.end(),
                     [&](const auto& one) { return stays(one.parameter) && stays(one.state); }) &&
         std::all_of(m.module.begin(), m.module.end(),
                     [&](const auto& name) { return stays(name.tensor); });
}

void take_config(Config config, Manifest& m) {
  m.source.config = std::move(config.value);
  m.aux_files.push_back(
      {manifest::AuxKind::kConfig, "config.json", manifest::Bytes{std::move(config.text)}});
}

}  // namespace

Result<LaidOut> lay_out(const rules::RuleSet& rules, bool keep_unmatched, const ReadTensor& read,
                        Manifest& m) {
  LaidOut out;
  XD_TRY_SET(const auto found, find_layout(rules, keep_unmatched, m));
  if (!found) return out;
  const pb::Layout& layout = *found->layout;
  if (m.tensors.empty()) {
    return unsupported(
        "expected a model, found no tensors, only metadata such as a vocabulary: name the file of "
        "weights");
  }
  const Facts facts(m);
  const Variables variables(facts, layout);
  const auto where = [&](Error e) {
    return std::move(e).in(cat("rule ", found->rule->model_type()));
  };
  auto config = make_config(layout, variables, m, read);
  if (!config) return where(std::move(config).error());
  auto made = apply_tensor_rules(*found->rule, layout, variables, facts, keep_unmatched, m);
  if (!made) return where(std::move(made).error());
  for (size_t i = 0; i < made->tensors.size(); ++i)
    transform::describe(made->expressions[i], m.tensors, made->tensors[i]);
  const auto places = places_of(made->expressions, m);
  const bool follows = state_follows(places, m);
  auto training = follows ? manifest::TrainingState() : std::exchange(m.training, {});
  auto module = follows ? std::vector<manifest::ModuleName>() : std::exchange(m.module, {});
  auto stored = replace_tensors(places, std::move(made->tensors), m);
  if (!stored) {
    if (!follows) {
      m.training = std::move(training);
      m.module = std::move(module);
    }
    return std::move(stored).error().in("layout rules");
  }
  if (!training.moments.empty())
    out.notes.push_back(
        "The optimizer's state is left out: it is laid out as the source's tensors are, not as the "
        "model's.");
  out.stored = *std::move(stored);
  out.expressions = std::move(made->expressions);
  for (const auto& t : m.tensors) {
    if (!t.excluded.empty() && t.role != manifest::Role::kOptimizerState)
      out.notes.push_back(cat(base::printable(t.name), " is left out: ", t.excluded));
  }
  if (m.source.config.kind.index() != 0 || config->text.empty()) return out;
  std::string list;
  config->missing.insert(config->missing.begin(), layout.unknown().begin(), layout.unknown().end());
  for (const std::string& what : config->missing) list += cat(list.empty() ? "" : ", ", what);
  out.notes.push_back(cat("config.json was made from the metadata",
                          list.empty() ? "" : ", which does not tell ", list,
                          ": compare it with the original model's. Tokenizer files are not made."));
  take_config(*std::move(config), m);
  return out;
}

}  // namespace crossdock::rules
