// From a source's own tensors to those of the checkpoint of Hugging Face's class, by the layouts of
// rules.proto: names, shapes, order of elements, and config.json. A source whose format has no
// layouts is left as it is.
#pragma once

#include "core/layout/program.h"
#include "core/rules/rule_set.h"

#include <crossdock/manifest_wire.hpp>

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace crossdock::layout {

// config.json of a model whose files hold none, from their metadata.
struct Config {
  manifest::Value value;             // unset when the layout has no entries
  std::string text;                  // the same as JSON
  std::vector<std::string> missing;  // fields that the entries which apply have no value for
};

// Fills `out` with all values of a tensor of the source.
using ReadTensor = std::function<Result<void>(uint64_t tensor, std::span<std::byte> out)>;

struct LaidOut {
  // One for each tensor of the new manifest; empty, and then nothing else: as the source has it.
  std::vector<Program> programs;
  std::vector<manifest::Tensor> tensors;
  std::optional<Config> config;  // for a source that has none
  std::vector<std::string> notes;
};

// The source's model, as the rules have it. A new tensor's name is the source's own (several joined
// by '+', one of a stack with its index), its target name what the rule says, and `layout` how it
// is made. Errors: a source that is no model, a rule that is no rule or does not fit it, no rule
// for it, a tensor that is missing or that no rule takes. `read` is for small tensors that
// config.json is made from.
Result<LaidOut> lay_out(const rules::RuleSet& rules, bool keep_unmatched,
                        const manifest::Manifest& m, const ReadTensor& read);

}  // namespace crossdock::layout
