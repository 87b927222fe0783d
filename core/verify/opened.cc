// SPDX-License-Identifier: Apache-2.0
#include "core/verify/opened.h"

#include "core/convert/plain_weights.h"
#include "core/convert/session.h"
#include "core/convert/training_state.h"
#include "core/rules/class_names.h"

namespace crossdock::verify {

using manifest::Manifest;

namespace {

// As a conversion with --names gives them.
Result<void> give_names(const rules::RuleSet& rules, rules::Names names, Opened& out) {
  Manifest m = out.manifest();
  std::vector<std::string> unsaid;
  convert::leave_training_out(m, unsaid);  // no rule speaks of moments
  XD_TRY_SET(const auto rule, rules::ModuleRule::find(rules, m));
  if (!rule) {
    out.notes.push_back(
        "No rule tells the class's names (config.json names no class that is known): they stay.");
    return {};
  }
  XD_TRY_SET(auto composed, out.tensors->compose(*rule, names, m));
  if (names == rules::Names::kModule) XD_TRY(rules::give_class_names(*rule, m, unsaid));
  if (composed.expressions.empty()) {  // all tensors as they are, under other names perhaps
    composed.expressions = out.tensors->expressions();
    if (composed.expressions.empty()) {
      for (uint64_t i = 0; i < m.tensors.size(); ++i)
        composed.expressions.push_back(transform::stored_tensor(i, m.tensors[i]));
    }
  }
  out.tensors->take(std::move(composed), m);
  return {};
}

}  // namespace

Result<void> open_in(plugin::Host& host, const plugin::Registry& registry,
                     const std::string& source, const OpenOptions& options,
                     const std::function<void(const std::string&)>& note, Opened& out) {
  const auto loaded = rules::RuleSet::load(options.rules);
  if (!loaded) note(loaded.error().message);
  const rules::RuleSet rules = loaded ? *loaded : rules::RuleSet();
  XD_TRY_SET(auto input, io::open_input(source));
  XD_TRY_SET(out.model, convert::OpenModel::open(host, registry, std::move(input), options.from,
                                                 options.reader_options, options.writer_caps));
  XD_TRY_SET(Manifest m, out.model->describe());
  for (const std::string& text : out.model->notes()) note(text);
  auto laid_out = rules::lay_out(rules, options.keep_unmatched, convert::reader_of(*out.model), m);
  if (!laid_out) note(laid_out.error().message);
  rules::LaidOut made = laid_out ? *std::move(laid_out) : rules::LaidOut();
  const auto dtype = convert::dequant_dtype(options.dequant_dtype);
  if (const auto plain = convert::make_plain(*out.model, dtype, made, m); !plain)
    note(plain.error().message);
  out.tensors = std::make_unique<convert::TensorSource>(
      *out.model, std::move(m), std::move(made.expressions), std::move(made.stored));
  return options.names ? give_names(rules, *options.names, out) : Result<void>();
}

Result<Opened> open_checkpoint(const plugin::Registry& registry, io::Os& os, base::Memory& memory,
                               const std::atomic<bool>& cancelled, const std::string& source,
                               const OpenOptions& options) {
  Opened out;
  out.host = std::make_unique<plugin::Host>(os, memory, cancelled);
  const auto warnings = std::make_shared<convert::Notes>();
  out.host->log = [warnings](int32_t level, const std::string& text) {
    if (level >= XD_LOG_WARN) warnings->add(text);
  };
  XD_TRY(open_in(
      *out.host, registry, source, options,
      [&out](const std::string& text) { out.notes.push_back(text); }, out));
  for (std::string& text : warnings->list()) out.notes.push_back(std::move(text));
  return out;
}

}  // namespace crossdock::verify
