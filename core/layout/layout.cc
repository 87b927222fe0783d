#include "core/layout/layout.h"

#include "core/base/text.h"
#include "core/layout/config.h"
#include "core/layout/tensor_rules.h"
#include "core/layout/variables.h"
#include "core/model/textproto.h"

#include <boost/filesystem/operations.hpp>

#include <algorithm>
#include <utility>

namespace crossdock::layout {

namespace pb = rules::v1;
namespace fs = boost::filesystem;
using manifest::Manifest;

namespace {

Result<std::vector<fs::path>> rule_files(const Options& options) {
  std::vector<fs::path> out = options.files;
  for (const fs::path& folder : options.folders) {
    std::vector<fs::path> found;
    boost::system::error_code ec;
    for (fs::directory_iterator it(folder, ec); !ec && it != fs::directory_iterator(); it.increment(ec)) {
      if (it->path().extension() == ".textproto") found.push_back(it->path());
    }
    std::sort(found.begin(), found.end());
    out.insert(out.end(), found.begin(), found.end());
  }
  return out;
}

struct Found {
  pb::Architecture rule;
  pb::Layout layout;
};

// Sets `any` when the format has layouts at all.
Result<std::optional<Found>> find_layout(const std::vector<fs::path>& files, const Manifest& m, bool& any) {
  const std::string format = m.source.format.substr(0, m.source.format.find('/'));
  std::optional<Found> best;
  for (const fs::path& file : files) {
    XD_TRY_SET(const auto rule, model::read_textproto<pb::Architecture>(file.string(), "a rule"));
    for (const pb::Layout& layout : rule.layout()) {
      if (layout.format() != format) continue;
      any = true;
      if (!all_hold(layout.when(), m.source.metadata)) continue;
      if (!best || layout.when().size() > best->layout.when().size()) best = Found{rule, layout};
    }
  }
  return best;
}

// "llama" of a GGUF file: what a rule for it would ask for.
std::string architecture_of(const Manifest& m) {
  for (const auto& entry : m.source.metadata) {
    const auto* text = entry.value.get<std::string>();
    if (entry.key == "general.architecture" && text) return base::printable(*text);
  }
  return "no general.architecture";
}

}  // namespace

Result<LaidOut> lay_out(const Options& options, Manifest& m, const ReadTensor& read) {
  LaidOut out;
  bool any = false;
  XD_TRY_SET(const auto files, rule_files(options));
  XD_TRY_SET(const auto found, find_layout(files, m, any));
  if (!found) {
    if (any && !options.keep_unmatched) {
      out.unmatched = unsupported(
          cat("expected an architecture that there is a layout rule for, found ", architecture_of(m), " in ",
              m.source.format,
              ": write one as in docs/rules.md and give it with --rules FILE, or keep the file's own names with "
              "--keep-unmatched"));
    }
    return out;
  }
  const Variables variables(m.source.metadata, found->layout);
  const auto where = [&](Error e) { return std::move(e).in(cat("rule ", found->rule.model_type())); };
  // config.json first: it asks for tensors by the names that they have in the file.
  auto config = make_config(found->layout, variables, m, read);
  if (!config) return where(std::move(config).error());
  auto made = apply_tensor_rules(found->layout, variables, options.keep_unmatched, m);
  if (!made) return where(std::move(made).error());
  out.programs = *std::move(made);
  for (const auto& t : m.tensors) {
    if (!t.left_out.empty()) out.notes.push_back(cat(base::printable(t.name), " is left out: ", t.left_out));
  }
  if (m.source.config.kind.index() == 0 && !config->text.empty()) {
    m.source.config = std::move(config->value);
    m.aux_files.push_back({manifest::AuxKind::kConfig, "config.json", manifest::Bytes{std::move(config->text)}});
    std::string list;
    config->missing.insert(config->missing.begin(), found->layout.untold().begin(), found->layout.untold().end());
    for (const std::string& what : config->missing) list += cat(list.empty() ? "" : ", ", what);
    out.notes.push_back(cat("config.json was made from the metadata", list.empty() ? "" : ", which does not tell ",
                            list, ": compare it with the original model's. Tokenizer files are not made."));
  }
  return out;
}

}  // namespace crossdock::layout
