// From the model as its source has it to the model as the job wants it: names, roles, what is
// trained, what is left out. Tensors keep their indexes, so a tensor is the same number for the
// reader, the host and the writer.
#pragma once

#include <crossdock/manifest_wire.hpp>

#include <optional>
#include <string>
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
  // Those of an architecture's rule come last, and may match nothing.
  std::vector<std::string> rule_renames;
  // The tensors need not be those of the class that config.json names, nor of its sizes
  // (config_check.h, rules.h).
  bool ignore_config_mismatch = false;
  // Regular expressions, searched for in the target name. `trainable` alone: all others are frozen;
  // `frozen` alone: all others are trained; both: frozen wins.
  std::vector<std::string> trainable;
  std::vector<std::string> frozen;
  // A file that describes the job's module: a manifest without bytes. Empty: none.
  std::string description;
  // The optimizer's groups of the job, where a rule describes its module: "single", "hf-trainer" or
  // a file (param_groups.h).
  std::string param_groups = "single";
};

// Fills target_name, role and train. `description`: of the job's module, or nullptr (see
// describe.h).
Result<void> apply_target(const TargetOptions& options, const manifest::Manifest* description,
                          manifest::Manifest& m, std::vector<std::string>& notes);

// "Every name begins with ...: --strip-prefix module.", when wrappers of the training program left
// their names in those of the tensors. Empty: they did not.
std::string wrapper_hint(const manifest::Manifest& m);

// Whether config.json says that the output embedding is the input embedding.
bool ties_embeddings(const manifest::Manifest& m);

// The embeddings that such a model shares, by index: the head, and the input that is like it in
// type and shape.
struct Tied {
  std::optional<uint64_t> in, out;
  bool operator==(const Tied&) const = default;
};
Tied tied_embeddings(const manifest::Manifest& m);

}  // namespace crossdock::model
