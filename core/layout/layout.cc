#include "core/layout/layout.h"

#include "core/base/text.h"
#include "core/layout/config.h"
#include "core/layout/tensor_rules.h"
#include "core/layout/variables.h"

#include <algorithm>
#include <utility>

namespace crossdock::layout {

using manifest::Manifest;

namespace {

struct Found {
  const pb::Architecture* rule;  // of the set
  const pb::Layout* layout;
};

// "llama" of a GGUF file: what a rule for it would ask for.
std::string architecture_of(const Manifest& m) {
  for (const auto& entry : m.source.metadata) {
    const auto* text = entry.value.get<std::string>();
    if (entry.key == "general.architecture" && text) return base::printable(*text);
  }
  return "no general.architecture";
}

// Nothing: the format has no layouts. Errors: a source that is no model, or of an architecture
// without a layout.
Result<std::optional<Found>> find_layout(const rules::RuleSet& rules, bool keep_unmatched,
                                         const Manifest& m) {
  const std::string format = m.source.format.substr(0, m.source.format.find('/'));
  bool any = false;
  std::optional<Found> best;
  for (const pb::Architecture& rule : rules.all()) {
    for (const pb::Layout& layout : rule.layout()) {
      if (layout.format() != format) continue;
      any = true;
      if (!all_hold(layout.when(), m.source.metadata)) continue;
      if (!layout.refused().empty())
        return unsupported(cat("expected a model, found ", layout.refused()));
      if (!best || layout.when().size() > best->layout->when().size()) best = Found{&rule, &layout};
    }
  }
  if (!any || best) return best;
  if (keep_unmatched) return std::optional<Found>();
  return unsupported(cat(
      "expected an architecture that there is a layout rule for, found ", architecture_of(m),
      " in ", m.source.format,
      ": write one as in docs/rules.md and give it with --rules FILE, or keep the file's own names "
      "with --keep-unmatched"));
}

}  // namespace

Result<LaidOut> lay_out(const rules::RuleSet& rules, bool keep_unmatched, const Manifest& m,
                        const ReadTensor& read) {
  LaidOut out;
  XD_TRY_SET(const auto found, find_layout(rules, keep_unmatched, m));
  if (!found) return out;
  if (m.tensors.empty())
    return unsupported(
        "expected a model, found no tensors, only metadata such as a vocabulary: name the file of "
        "weights");
  const Variables variables(m.source.metadata, *found->layout);
  const auto where = [&](Error e) {
    return std::move(e).in(cat("rule ", found->rule->model_type()));
  };
  auto config = make_config(*found->layout, variables, m, read);
  if (!config) return where(std::move(config).error());
  auto made = apply_tensor_rules(*found->rule, *found->layout, variables, keep_unmatched, m);
  if (!made) return where(std::move(made).error());
  out.programs = std::move(made->programs);
  out.tensors = std::move(made->tensors);
  for (const auto& t : out.tensors) {
    if (!t.left_out.empty())
      out.notes.push_back(cat(base::printable(t.name), " is left out: ", t.left_out));
  }
  if (m.source.config.kind.index() != 0 || config->text.empty()) return out;
  std::string list;
  config->missing.insert(config->missing.begin(), found->layout->untold().begin(),
                         found->layout->untold().end());
  for (const std::string& what : config->missing) list += cat(list.empty() ? "" : ", ", what);
  out.notes.push_back(cat("config.json was made from the metadata",
                          list.empty() ? "" : ", which does not tell ", list,
                          ": compare it with the original model's. Tokenizer files are not made."));
  out.config = *std::move(config);
  return out;
}

}  // namespace crossdock::layout
