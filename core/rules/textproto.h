// SPDX-License-Identifier: Apache-2.0

// Files of settings in protobuf's text format, which the parser checks against the schema.
#pragma once

#include <crossdock/result.hpp>

#include <google/protobuf/message.h>

#include <string>

namespace crossdock::rules {

// Errors name `path`, `what` it should be ("a rule") and the line. `out` is then unspecified.
Result<void> parse_textproto(const std::string& path, const std::string& what,
                             google::protobuf::Message& out);

template <class Message>
Result<Message> read_textproto(const std::string& path, const std::string& what) {
  Message out;
  XD_TRY(parse_textproto(path, what, out));
  return out;
}

}  // namespace crossdock::rules
