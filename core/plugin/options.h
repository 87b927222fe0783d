// SPDX-License-Identifier: Apache-2.0

// A plugin's options, checked against its own schema before it sees them.
#pragma once

#include <crossdock/plugin.h>
#include <crossdock/result.hpp>

#include <deque>
#include <map>
#include <string>
#include <vector>

namespace crossdock::plugin {

// As the user gave them: the flag's name without "--", and its values in order.
using GivenOptions = std::map<std::string, std::vector<std::string>>;

// The checked options in the form the ABI wants. Keeps the strings that the pointers lead to.
class CheckedOptions {
 public:
  // Fills in fallbacks, reads files. Errors: a required one is missing, a value that is not of the
  // type. Options that the schema does not have are the caller's to refuse.
  static Result<CheckedOptions> check(const xd_option_desc* const* schema,
                                      const GivenOptions& given);

  // Whether a value is of the option's type.
  static bool check_value(const xd_option_desc& option, const std::string& value);

  const xd_option* const* table() const { return pointers_.data(); }
  // For the report: the values that table() has, but of a file its path as it was given.
  const std::vector<std::pair<std::string, std::string>>& pairs() const { return told_; }

 private:
  void add(const std::string& key, const std::string& value, const std::string& told);
  std::deque<std::string> texts_;
  std::deque<xd_option> options_;
  std::vector<const xd_option*> pointers_{nullptr};
  std::vector<std::pair<std::string, std::string>> told_;
};

}  // namespace crossdock::plugin
