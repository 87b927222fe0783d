// SPDX-License-Identifier: Apache-2.0

// From the model as its source has it to the model as the job wants it: names, roles, what is
// trained, what is left out. Tensors keep their indexes, so a tensor is the same number for the
// reader, the host and the writer.
#pragma once

#include <crossdock/manifest_wire.hpp>

#include <string>
#include <unordered_map>
#include <vector>

namespace crossdock::model {

struct TargetOptions {
  // Names: first the prefix goes, then each FROM=TO (an ECMAScript regular expression, $1 for
  // groups) is applied in turn to every match, then the new prefix comes. One that no tensor needs
  // is an error. FROM ends at the first '=' that is in no parentheses or brackets and has no
  // backslash in front.
  std::string strip_prefix;
  std::vector<std::string> renames;
  std::string add_prefix;
  // The tensors need not be those of the class that config.json names, nor of its sizes
  // (core/rules/config_check.h, module.h).
  bool ignore_config_mismatch = false;
  // Regular expressions, searched for in the target name. `trainable` alone: all others are frozen;
  // `frozen` alone: all others are trained; both: frozen wins.
  std::vector<std::string> trainable;
  std::vector<std::string> frozen;
  // A file that describes the job's module: a manifest without bytes. Empty: none.
  std::string description;
  // The optimizer's groups of the job, where a rule describes its module: "single", "hf-trainer" or
  // a file (core/rules/param_groups.h).
  std::string param_groups = "single";
};

// Fills target_name by the user's own changes of names, and role.
Result<void> give_names(const TargetOptions& options, manifest::Manifest& m);

// Fills train, and by `module`, the description of the job's module or nullptr, all that describe.h
// says. After all names are given.
Result<void> apply_module(const TargetOptions& options, const manifest::Manifest* module,
                          manifest::Manifest& m, std::vector<std::string>& notes);

// The tensors that are not excluded, by index.
std::unordered_map<std::string, uint64_t> by_target_name(const manifest::Manifest& m);

// "Every name begins with ...: --strip-prefix module.", when wrappers of the training program left
// their names in those of the tensors. Empty: they did not.
std::string wrapper_hint(const manifest::Manifest& m);

// The embeddings that are one parameter by config.json, where no rule tells it: by index the input,
// and the head of its type and shape. Empty, or one group; a head without its like is noted.
std::vector<manifest::AliasGroup> tied_embeddings(const manifest::Manifest& m,
                                                  std::vector<std::string>& notes);

}  // namespace crossdock::model
