// SPDX-License-Identifier: Apache-2.0
#include "core/rules/textproto.h"

#include "core/io/small_file.h"

#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/text_format.h>

namespace crossdock::rules {
namespace {

constexpr uint64_t kMaxBytes = 16 << 20;
constexpr int kMaxDepth = 32;  // of messages in each other

class FirstComplaint : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int line, int, const std::string& message) override {
    if (text.empty()) text = cat("in line ", line + 1, ": ", message);
  }
  std::string text;
};

}  // namespace

Result<void> parse_textproto(const std::string& path, const std::string& what,
                             google::protobuf::Message& out) {
  const auto text = io::read_small_file(path, kMaxBytes);
  if (!text)
    return Error{text.error().code, cat(path, ": expected ", what, ", ", text.error().message)};
  FirstComplaint complaint;
  google::protobuf::TextFormat::Parser parser;
  parser.RecordErrorsTo(&complaint);
  parser.SetRecursionLimit(kMaxDepth);
  if (parser.ParseFromString(*text, &out)) return {};
  return invalid(
      cat(path, ": expected ", what, " in protobuf's text format, found ", complaint.text));
}

}  // namespace crossdock::rules
