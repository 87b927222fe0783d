// SPDX-License-Identifier: Apache-2.0
#include "core/model/dump.h"

#include <google/protobuf/util/json_util.h>

#include "crossdock/manifest.pb.h"

namespace crossdock::model {

Result<std::string> to_json(const manifest::Manifest& m) {
  ::crossdock::manifest::v1::Manifest message;
  if (!message.ParseFromString(manifest::encode(m)))
    return Error{XD_INTERNAL, "manifest: protobuf does not take our bytes"};
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = true;
  options.preserve_proto_field_names = true;
  std::string out;
  if (const auto status = google::protobuf::util::MessageToJsonString(message, &out, options);
      !status.ok()) {
    return Error{XD_INTERNAL, "manifest: " + status.ToString()};
  }
  return out + "\n";
}

}  // namespace crossdock::model
