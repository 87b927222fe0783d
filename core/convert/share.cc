// SPDX-License-Identifier: Apache-2.0
#include "core/convert/share.h"

#include <algorithm>
#include <numeric>
#include <queue>
#include <utility>

namespace crossdock::convert {

namespace {

// What making a file costs beside its bytes, as bytes: a universal checkpoint has 100,000 small
// ones.
constexpr uint64_t kFileCost = 64 << 10;

struct Shares {
  std::vector<uint32_t> owners;  // by file
  std::vector<uint64_t> loads;   // by part
};

Shares shares(const plugin::Plan& plan, uint32_t parts) {
  std::vector<uint64_t> cost(plan.objects.size() + plan.aux.size(), kFileCost);
  for (const plugin::PlanItem& item : plan.items) cost[item.object] += item.out_bytes;
  std::vector<uint64_t> order(cost.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&cost](uint64_t a, uint64_t b) { return cost[a] > cost[b]; });

  Shares out{std::vector<uint32_t>(cost.size()), std::vector<uint64_t>(parts)};
  using Load = std::pair<uint64_t, uint32_t>;
  std::priority_queue<Load, std::vector<Load>, std::greater<>> least;
  for (uint32_t part = 0; part < parts; ++part) least.emplace(0, part);
  for (const uint64_t file : order) {
    const auto [load, part] = least.top();
    least.pop();
    out.owners[file] = part;
    out.loads[part] = load + cost[file];
    least.emplace(out.loads[part], part);
  }
  return out;
}

}  // namespace

std::vector<bool> share_of(const plugin::Plan& plan, const Part& part) {
  const std::vector<uint32_t> owners = shares(plan, part.count).owners;
  std::vector<bool> out(owners.size());
  for (size_t i = 0; i < owners.size(); ++i) out[i] = owners[i] == part.index;
  return out;
}

double unevenness(const plugin::Plan& plan, uint32_t parts) {
  const std::vector<uint64_t> loads = shares(plan, parts).loads;
  const uint64_t sum = std::accumulate(loads.begin(), loads.end(), uint64_t{0});
  if (sum == 0) return 1;
  return static_cast<double>(*std::max_element(loads.begin(), loads.end())) * parts /
         static_cast<double>(sum);
}

}  // namespace crossdock::convert
