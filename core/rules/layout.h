// SPDX-License-Identifier: Apache-2.0

// From a source's own tensors to those of the checkpoint of Hugging Face's class, by the layouts of
// rules.proto: names, shapes, order of elements, and config.json. A source that no layout is for is
// left as it is.
#pragma once

#include "core/rules/rule_set.h"
#include "core/transform/expression.h"

#include <crossdock/manifest_wire.hpp>

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace crossdock::rules {

// config.json of a model whose files hold none, from their metadata.
struct Config {
  manifest::Value value;             // unset when the layout has no entries
  std::string text;                  // the same as JSON
  std::vector<std::string> missing;  // fields that the entries which apply have no value for
};

// Fills `out` with the first `count` stored elements of a tensor.
using ReadTensor =
    std::function<Result<void>(uint64_t tensor, uint64_t count, std::span<std::byte> out)>;

struct LaidOut {
  // One for each tensor of the new manifest, of the stored ones; empty, and then nothing else: as
  // the source has it.
  std::vector<transform::Expression> expressions;
  std::vector<manifest::Tensor> stored;  // as the source has them
  std::vector<std::string> notes;
};

// Makes `m`, which is as the source has it, the model that the rules make of it; after an error it
// is as it was. A new tensor's name is the source's own (several joined by '+', one of a stack with
// its index), its target name what the rule says, and `expression` how it is made. Errors: a source
// that is no model, a rule that is no rule or does not fit it, no rule for it, a tensor that is
// missing or that no rule takes. `read` is for small tensors that config.json is made from.
Result<LaidOut> lay_out(const rules::RuleSet& rules, bool keep_unmatched, const ReadTensor& read,
                        manifest::Manifest& m);

}  // namespace crossdock::rules
