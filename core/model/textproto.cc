#include "core/model/textproto.h"

#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/text_format.h>

#include <fstream>
#include <sstream>

namespace crossdock::model {
namespace {

class FirstComplaint : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int line, int, const std::string& message) override {
    if (text.empty()) text = cat("in line ", line + 1, ": ", message);
  }
  std::string text;
};

}  // namespace

Result<void> parse_textproto(const std::string& path, const std::string& what, google::protobuf::Message& out) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  if (!in) return Error{XD_NOT_FOUND, cat(path, ": expected ", what, ", found no such file, or an empty one")};
  FirstComplaint complaint;
  google::protobuf::TextFormat::Parser parser;
  parser.RecordErrorsTo(&complaint);
  if (parser.ParseFromString(text.str(), &out)) return {};
  return invalid(cat(path, ": expected ", what, " in protobuf's text format, found ", complaint.text));
}

}  // namespace crossdock::model
