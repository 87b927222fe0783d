// From a source's own tensors to those of the checkpoint of Hugging Face's class, by the layouts of rules.proto: names,
// shapes, order of elements, and config.json. A source whose format has no layouts is left as it is.
#pragma once

#include "core/layout/program.h"

#include <crossdock/manifest_wire.hpp>

#include <boost/filesystem/path.hpp>

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace crossdock::layout {

struct Options {
  std::vector<boost::filesystem::path> files;    // of rules, before those of the folders
  std::vector<boost::filesystem::path> folders;  // with *.textproto
  bool keep_unmatched = false;                   // what no rule takes stays under its own name
};

// Fills `out` with all values of a tensor of the source.
using ReadTensor = std::function<Result<void>(uint64_t tensor, std::span<std::byte> out)>;

struct LaidOut {
  // One for each tensor of the new manifest; empty: as the source has it.
  std::vector<Program> programs;
  std::vector<std::string> notes;
  // Why the source was left as it is although its format has layouts: a conversion would write names that no class has.
  std::optional<Error> unmatched;
};

// Changes m. In the new manifest a tensor's name is the source's own (several joined by '+', one of a stack with its
// index), its target name what the rule says, and `layout` how it is made. Errors: a rule that is no rule or does not
// fit the source, a tensor that no rule takes.
// `read` is for small tensors that config.json is made from.
Result<LaidOut> lay_out(const Options& options, manifest::Manifest& m, const ReadTensor& read);

}  // namespace crossdock::layout
