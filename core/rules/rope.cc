// SPDX-License-Identifier: Apache-2.0
#include "core/rules/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

namespace crossdock::rules {

namespace {

constexpr double kPrecision =
    2e-5;  // relative: of float32 frequencies, through a division by their differences

// The number of turns that each pair makes per position.
std::vector<double> turns(size_t n_pairs, double base) {
  std::vector<double> out(n_pairs);
  for (size_t i = 0; i < n_pairs; ++i)
    out[i] = std::pow(base, -static_cast<double>(i) / static_cast<double>(n_pairs)) /
             (2 * std::numbers::pi);
  return out;
}

double factor_at(const Llama3Scaling& s, double turns) {
  const double in_context = s.original_max_position_embeddings * turns;
  if (in_context > s.high_freq_factor) return 1;
  if (in_context < s.low_freq_factor) return s.factor;
  const double smooth = (in_context - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
  return 1 / ((1 - smooth) / s.factor + smooth);
}

bool is_near(double a, double b) { return std::fabs(a - b) <= kPrecision * std::fabs(b); }

// The whole number, half or quarter that x is but for rounding.
double tidied(double x) {
  const double near = std::round(4 * x) / 4;
  return near > 0 && is_near(x, near) ? near : x;
}

}  // namespace

std::optional<Llama3Scaling> find_llama3_scaling(std::span<const float> factors, double base) {
  if (factors.empty() || !(base > 1) || !std::isfinite(base)) return std::nullopt;
  const double most = *std::max_element(factors.begin(), factors.end());
  if (!(most > 1) || !std::isfinite(most)) return std::nullopt;
  const auto at = turns(factors.size(), base);
  // Between both ends 1/factor is a line over the turns: smooth = original/(high - low) turns -
  // low/(high - low).
  std::vector<std::pair<double, double>> line;
  for (size_t i = 0; i < factors.size(); ++i) {
    if (!(factors[i] >= 1)) return std::nullopt;
    if (factors[i] > 1 && factors[i] < most)
      line.emplace_back(at[i], (1 / double{factors[i]} - 1 / most) / (1 - 1 / most));
  }
  if (line.size() < 2) return std::nullopt;
  const auto [x0, y0] = line.front();
  const auto [x1, y1] = line.back();
  const double slope = (y1 - y0) / (x1 - x0), start = slope * x0 - y0;
  if (!(slope > 0) || !(start > 0)) return std::nullopt;
  const Llama3Scaling found{tidied(most), 1, tidied(1 + 1 / start), std::round(slope / start)};
  for (size_t i = 0; i < factors.size(); ++i) {
    if (!is_near(factors[i], factor_at(found, at[i]))) return std::nullopt;
  }
  return found;
}

}  // namespace crossdock::rules
