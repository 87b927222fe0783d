// SPDX-License-Identifier: Apache-2.0

// A checkpoint that is only looked at: opened by its reader, with the names that its layout gives
// it, as `crossdock inspect` shows it.
#pragma once

#include "core/convert/tensor_source.h"

#include <atomic>
#include <functional>
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

// Opens it in a host of the caller's, which outlives `out` as `registry` does; `note` gets each
// note when it comes. A layout or a quantisation that the rules cannot make sense of is a note:
// then the tensors are those of the file.
Result<void> open_in(plugin::Host& host, const plugin::Registry& registry,
                     const std::string& source, const OpenOptions& options,
                     const std::function<void(const std::string&)>& note, Opened& out);

// The same in a host of its own, with its plugins' warnings among the notes. `registry`, `os`,
// `memory` and `cancelled` outlive it.
Result<Opened> open_checkpoint(const plugin::Registry& registry, io::Os& os, base::Memory& memory,
                               const std::atomic<bool>& cancelled, const std::string& source,
                               const OpenOptions& options);

}  // namespace crossdock::verify
