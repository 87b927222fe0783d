// SPDX-License-Identifier: Apache-2.0

// Any bytes as crossdock.json, with the digest of itself that such a text has to have. What is read
// is written and read again the same.
#include "core/report/report.h"
#include "core/report/self_digest.h"

using namespace crossdock;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string text(reinterpret_cast<const char*>(data), size);
  (void)report::from_json(text);
  if (!text.ends_with("}\n}\n")) text += "}\n}\n";
  const auto read = report::from_json(report::with_digest(text));
  if (!read) return 0;
  const std::string written = report::to_json(*read);
  const auto again = report::from_json(written);
  if (!again || report::to_json(*again) != written) __builtin_trap();
  return 0;
}
