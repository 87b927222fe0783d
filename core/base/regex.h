// SPDX-License-Identifier: Apache-2.0

// Regular expressions (ECMAScript) for names. std::regex's templates are compiled here alone.
#pragma once

#include <crossdock/result.hpp>

#include <memory>
#include <string>
#include <vector>

namespace crossdock::base {

class Regex {
 public:
  static Result<Regex> compile(const std::string& pattern);
  size_t groups() const;
  // Errors: a name of more than 1000 bytes, for which the library's recursion could end the
  // process.
  Result<bool> is_in(const std::string& name) const;
  // Every match becomes `by`, in which $1 is the first group.
  Result<std::string> replace(const std::string& name, const std::string& by) const;

 private:
  struct Compiled;
  std::shared_ptr<const Compiled> compiled_;
};

Result<std::vector<Regex>> compile_all(const std::vector<std::string>& patterns);
Result<bool> any_is_in(const std::vector<Regex>& patterns, const std::string& name);

}  // namespace crossdock::base
