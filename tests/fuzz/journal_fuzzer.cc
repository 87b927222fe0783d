// SPDX-License-Identifier: Apache-2.0

// What a staging folder may hold. The first byte says what the others are: a journal, a record of
// one, or a plan. A record that is read is written and read again the same.
#include "core/convert/plan_text.h"
#include "core/convert/record.h"
#include "core/io/journal.h"

using namespace crossdock;

namespace {

void try_journal(const std::string& bytes) {
  const io::JournalRecords records = io::parse_journal(bytes);
  if (records.n_durable > records.all.size()) __builtin_trap();
  for (const std::string& record : records.all) (void)convert::decode_record(record);
}

void try_record(const std::string& bytes) {
  const auto record = convert::decode_record(bytes);
  if (!record) return;
  const std::string text = convert::encode(*record);
  const auto again = convert::decode_record(text);
  if (!again || convert::encode(*again) != text) __builtin_trap();
}

void try_plan(const std::string& text) {
  static const std::string ours =
      R"({"crossdock plan": 1, "id": "tree:1", "source": "/s", "arguments": ["--to=x"], )"
      R"("same": {"crossdock": "0.1.0", "reader": {"id": "r", "version": "1", "options": {}}, )"
      R"("writer": {"id": "w", "version": "1", "options": {"dtype": ["bf16"]}}, )"
      R"("files": {"a": {"size": 1, "modified": 2}}, "model": "tree:2", "plan": "tree:3"}})";
  const auto plan = convert::parse_plan(text);
  const std::string difference = convert::plan_difference(text, ours);
  if (!plan && difference.empty()) __builtin_trap();
  if (!convert::plan_difference(ours, ours).empty()) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0]) {
    case 'J':
      try_journal(rest);
      break;
    case 'P':
      try_plan(rest);
      break;
    default:
      try_record(rest);
  }
  return 0;
}
