// A checkpoint that is only looked at: opened by its reader, with the names that its layout gives
// it, as `crossdock inspect` shows it.
#pragma once

#include "core/convert/tensor_source.h"

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace crossdock::verify {

struct OpenOptions {
  std::string from = "auto";
  plugin::GivenOptions reader_options;
  rules::RuleFiles rules;
  bool keep_unmatched = false;
  std::string dequant_dtype = "auto";
  uint64_t writer_caps = 0;  // of the writer that made it; 0: unknown
  // The names and shapes of the running class, or of Hugging Face's files, which an optimizer's
  // state has not: it becomes excluded; unset: as they are.
  std::optional<rules::Names> names;
};

struct Opened {
  std::unique_ptr<plugin::Host>
      host;  // of its own: it knows what was read of this checkpoint alone
  std::unique_ptr<convert::OpenModel> model;
  std::unique_ptr<convert::TensorSource> tensors;
  std::vector<std::string> notes;

  const manifest::Manifest& manifest() const { return tensors->manifest(); }
};

// `registry`, `os`, `memory` and `cancelled` outlive it. A layout or a quantisation that the rules
// cannot make sense of is a note: then the tensors are those of the file.
Result<Opened> open_checkpoint(const plugin::Registry& registry, io::Os& os, base::Memory& memory,
                               const std::atomic<bool>& cancelled, const std::string& source,
                               const OpenOptions& options);

}  // namespace crossdock::verify
