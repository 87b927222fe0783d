// SPDX-License-Identifier: Apache-2.0

// What a module must keep, case by case. Each body runs in a child (child.h).
#pragma once

#include "apps/validate/module.h"

#include <functional>
#include <string>
#include <vector>

namespace crossdock::validate {

struct Case {
  std::string name;   // "read.ranges"
  std::string about;  // what it holds the plugin to, in a line
  std::function<Result<std::string>()> body;
};

// Of the library itself.
std::vector<Case> module_cases(const Job& job);
// Of a reader, beside any input.
std::vector<Case> probe_cases(const Job& job, const std::string& id);
// Of a reader with one input that it must read.
std::vector<Case> reader_cases(const Job& job, const std::string& id, const Sample& sample);
// Of a writer, with models that are made for it.
std::vector<Case> writer_cases(const Job& job, const std::string& id);

}  // namespace crossdock::validate
