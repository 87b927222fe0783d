// SPDX-License-Identifier: Apache-2.0
#include "core/transform/dequantise.h"

#include <crossdock/dtype.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <list>

namespace crossdock::transform {

namespace {

float mapped(const Node::Map& map, float value) {
  // Rounded once: the same on every machine.
  if (map.mapping == Mapping::kLogOfNegated) return static_cast<float>(std::log(-double{value}));
  return value + map.operand;
}

template <class T, class Change>
void change_each(std::span<std::byte> values, Change change) {
  for (size_t at = 0; at < values.size(); at += sizeof(T)) {
    T value;
    std::memcpy(&value, &values[at], sizeof(T));
    value = change(value);
    std::memcpy(&values[at], &value, sizeof(T));
  }
}

class Evaluation {
 public:
  Evaluation(const std::vector<Node>& nodes, const ReadStored& read) : nodes_(nodes), read_(read) {}

  // `scratch` is all that the node and those below it may use.
  Result<void> run(uint32_t index, const Runs& runs, std::span<std::byte> out,
                   std::span<std::byte> scratch) {
    const Node& node = nodes_[index];
    if (const auto* dequantised = std::get_if<Node::Dequantised>(&node.what))
      return run_dequantised(node, *dequantised, runs, out, scratch);
    const uint64_t n_bytes = out.size() / runs.count;
    for (uint64_t i = 0; i < runs.count; ++i)
      XD_TRY(run(node, runs.begin + i * runs.stride, out.subspan(i * n_bytes, n_bytes), scratch));
    return {};
  }

 private:
  static uint64_t elem_bytes(const Node& node) { return manifest::info(node.dtype).bits / 8; }

  Result<void> run(const Node& node, uint64_t begin, std::span<std::byte> out,
                   std::span<std::byte> scratch) {
    if (const auto* stored = std::get_if<Node::Stored>(&node.what))
      return read_(stored->tensor, begin, out.size() / elem_bytes(node), out);
    if (const auto* viewed = std::get_if<Node::Viewed>(&node.what))
      return run_view(node, *viewed, begin, out, scratch);
    if (const auto* concat = std::get_if<Node::Concat>(&node.what))
      return run_concat(node, *concat, begin, out, scratch);
    const auto& map = std::get<Node::Map>(node.what);
    XD_TRY(run(map.of, {begin}, out, scratch));
    if (map.mapping == Mapping::kAddWord) {
      change_each<uint32_t>(out, [&](uint32_t value) { return value + map.word; });
    } else {
      change_each<float>(out, [&](float value) { return mapped(map, value); });
    }
    return {};
  }

  // A view that gathers takes one block of the scratch, and leaves the others to what it asks.
  Result<void> run_view(const Node& node, const Node::Viewed& viewed, uint64_t begin,
                        std::span<std::byte> out, std::span<std::byte> scratch) {
    if (node.scratch_blocks == nodes_[viewed.of].scratch_blocks)
      return run(viewed.of, {viewed.offset + begin}, out, scratch);  // a run of what is below
    const auto mine = scratch.first(scratch.size() / node.scratch_blocks);
    const auto below = scratch.subspan(mine.size());
    release(mine);
    // Values that are computed cost more than those that are copied.
    const bool is_computed = nodes_[viewed.of].scratch_blocks > 0;
    return gather(
        viewed.factors, viewed.offset, elem_bytes(node), begin, out, mine,
        [&](const Runs& runs, std::span<std::byte> to) { return run(viewed.of, runs, to, below); },
        is_computed ? kCallBytes / 4 : kCallBytes);
  }

  Result<void> run_concat(const Node& node, const Node::Concat& concat, uint64_t begin,
                          std::span<std::byte> out, std::span<std::byte> scratch) {
    const uint64_t size = elem_bytes(node);
    while (!out.empty()) {
      const uint64_t step = begin / concat.whole;
      uint64_t at = begin % concat.whole;
      for (size_t i = 0; i < concat.of.size() && !out.empty(); ++i) {
        const uint64_t inner = concat.inner[i];
        if (at >= inner) {
          at -= inner;
          continue;
        }
        const uint64_t n = std::min(inner - at, out.size() / size);
        XD_TRY(run(concat.of[i], {step * inner + at}, out.first(n * size), scratch));
        out = out.subspan(n * size);
        begin += n;
        at = 0;
      }
    }
    return {};
  }

  Result<void> run_dequantised(const Node& node, const Node::Dequantised& dequantised,
                               const Runs& runs, std::span<std::byte> out,
                               std::span<std::byte> scratch) {
    const auto mine = scratch.first(scratch.size() / node.scratch_blocks);
    const auto below = scratch.subspan(mine.size());
    return dequantise(nodes_, node, runs, out, claim(mine, dequantised),
                      [&](uint32_t child, uint64_t from, std::span<std::byte> to) {
                        return run(child, {from}, to, below);
                      });
  }

  // What is read ahead lives in scratch, which other nodes of the tree use in their turn: then it
  // is gone.
  struct Claim {
    std::span<std::byte> scratch;
    const Node::Dequantised* node;
    ReadAhead ahead;
  };
  ReadAhead& claim(std::span<std::byte> scratch, const Node::Dequantised& node) {
    for (Claim& c : claims_) {
      if (c.node == &node && c.scratch.data() == scratch.data()) return c.ahead;
    }
    release(scratch);
    return claims_.emplace_back(Claim{scratch, &node, ReadAhead(node, scratch)}).ahead;
  }
  void release(std::span<std::byte> scratch) {
    std::erase_if(claims_, [&](const Claim& c) {
      return c.scratch.data() < scratch.data() + scratch.size() &&
             scratch.data() < c.scratch.data() + c.scratch.size();
    });
  }

  const std::vector<Node>& nodes_;
  const ReadStored& read_;
  std::list<Claim> claims_;  // which stay where they are
};

}  // namespace

Result<void> Expression::evaluate(uint64_t begin, std::span<std::byte> out,
                                  std::span<std::byte> scratch, const ReadStored& read) const {
  return Evaluation(nodes_, read)
      .run(static_cast<uint32_t>(nodes_.size() - 1), {begin}, out, scratch);
}

}  // namespace crossdock::transform
