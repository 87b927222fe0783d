// SPDX-License-Identifier: Apache-2.0

// Finds which names of a rule a tensor's name is, with its numbers.
#pragma once

#include "core/rules/numbers.h"

#include <string>
#include <unordered_map>
#include <vector>

namespace crossdock::rules {

class NameTree {
 public:
  struct Match {
    uint32_t id = 0;
    Numbers numbers;  // by depth: those of '#', '##' and so on
  };

  // Several ids may have one name.
  void add(std::string_view name, uint32_t id);
  // All that it is of the first name that fits, where a text goes before a number: "mlp.0" before
  // "mlp.#". Empty: it is none.
  std::vector<Match> find(std::string_view name) const;

 private:
  struct Node {
    std::unordered_map<std::string, uint32_t> texts;
    std::vector<std::pair<Placeholder, uint32_t>> numbers;
    std::vector<uint32_t> ids;
  };
  bool find(uint32_t node, const std::vector<std::string_view>& parts, size_t at, Numbers& numbers,
            std::vector<Match>& out) const;
  uint32_t child(uint32_t node, std::string_view part);

  std::vector<Node> nodes_ = std::vector<Node>(1);
};

}  // namespace crossdock::rules
