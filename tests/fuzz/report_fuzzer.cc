// Any bytes as crossdock.json. What is read is written and read again the same.
#include "core/report/report.h"

using namespace crossdock;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto read = report::from_json({reinterpret_cast<const char*>(data), size});
  if (!read) return 0;
  const std::string text = report::to_json(*read);
  const auto again = report::from_json(text);
  if (!again || report::to_json(*again) != text) __builtin_trap();
  return 0;
}
