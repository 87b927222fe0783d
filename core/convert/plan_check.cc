// SPDX-License-Identifier: Apache-2.0
#include "core/convert/plan_check.h"

#include "core/base/text.h"
#include "core/io/paths.h"
#include "core/model/check.h"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

namespace crossdock::convert {

namespace {

constexpr uint64_t kDiskBlock = 4096;
constexpr uint64_t kMaxObjectBytes = uint64_t{1} << 56;  // far beyond any file

// Names that differ only in case are one file on some file systems that the folder may be copied
// to.
Result<void> check_paths(const std::vector<std::string>& paths, const PlanLimits& limits,
                         std::vector<std::string>& notes) {
  std::unordered_set<std::string_view> exact;
  std::unordered_map<std::string, const std::string*> files;
  bool collides = false;
  for (const std::string& path : paths) {
    // A terminal, and every tool after us, can show and type the others.
    if (!is_safe_name(path) || fold_case(path) == io::kReportName ||
        base::printable(path) != path || !base::is_utf8(path))
      return invalid(
          cat("plan: expected a plain relative path, found \"", base::printable(path), '"'));
    const bool is_new = exact.insert(path).second;
    const auto [it, fresh] = files.emplace(fold_case(path), &path);
    collides = collides || !fresh;
    if (fresh || (is_new && limits.allow_case_collisions)) continue;
    return invalid(cat("plan: expected different paths, found ", *it->second, " and ", path,
                       is_new ? ": give one another name with --rename, or use "
                                "--allow-case-collisions for a disk that "
                                "tells them apart"
                              : ""));
  }
  if (collides) {
    notes.push_back(
        "Some names differ in the case of letters only: a disk that ignores it (of macOS, Windows, "
        "some "
        "network file systems) cannot take a copy of this folder.");
  }
  for (const std::string& path : paths) {
    for (size_t slash = path.find('/'); slash != path.npos; slash = path.find('/', slash + 1)) {
      const auto it = files.find(fold_case(path.substr(0, slash)));
      if (it != files.end())
        return invalid(
            cat("plan: expected ", *it->second, " to be a file, found ", path, " under it"));
    }
  }
  return {};
}

// Whether the needs cover [0, count), in any order.
bool covers(std::vector<plugin::PlanNeed>& needs, uint64_t count) {
  std::sort(needs.begin(), needs.end(),
            [](const auto& a, const auto& b) { return a.begin < b.begin; });
  uint64_t end = 0;
  for (const auto& need : needs) {
    if (need.begin > end) return false;
    end = std::max(end, need.begin + need.count);
  }
  return !needs.empty() && end >= count;
}

Result<void> check_tensors(const plugin::Plan& plan, const manifest::Manifest& m) {
  std::unordered_map<uint64_t, std::vector<plugin::PlanNeed>> used;
  for (const plugin::PlanItem& item : plan.items) {
    for (const plugin::PlanNeed& need : item.needs) {
      const uint64_t count = model::element_count(m.tensors[need.tensor]);
      if (need.begin > count || need.count > count - need.begin) {
        return invalid(cat("plan: expected elements inside ", m.tensors[need.tensor].name, " of ",
                           count, ", found ", need.begin, " + ", need.count));
      }
      used[need.tensor].push_back(need);
    }
  }
  std::unordered_set<uint64_t> excluded;
  for (const auto& [tensor, reason] : plan.excluded) {
    if (reason.empty())
      return invalid(
          cat("plan: expected a reason to leave out ", m.tensors[tensor].name, ", found none"));
    excluded.insert(tensor);
  }
  for (uint64_t i = 0; i < m.tensors.size(); ++i) {
    const bool is_excluded = !m.tensors[i].excluded.empty() || excluded.contains(i);
    const auto it = used.find(i);
    if (is_excluded && it == used.end()) continue;
    if (is_excluded)
      return invalid(cat("plan: expected ", m.tensors[i].name, " to be left out, found it used"));
    if (it == used.end() || !covers(it->second, model::element_count(m.tensors[i]))) {
      return invalid(cat("plan: expected every element of ", m.tensors[i].name,
                         " to be used, or the tensor excluded with a reason, found neither"));
    }
  }
  return {};
}

}  // namespace

Result<void> check_plan(const plugin::Plan& plan, const manifest::Manifest& m,
                        const PlanLimits& limits, std::vector<std::string>& notes) {
  std::vector<std::string> paths;
  for (const auto& object : plan.objects) paths.push_back(object.path);
  for (const auto& [path, aux] : plan.aux) {
    if (aux >= m.aux_files.size())
      return invalid(
          cat("plan: expected an auxiliary file below ", m.aux_files.size(), ", found ", aux));
    paths.push_back(path);
  }
  XD_TRY(check_paths(paths, limits, notes));
  for (const auto& object : plan.objects) {
    if (object.size > kMaxObjectBytes)
      return invalid(
          cat("plan: expected at most 2^56 bytes of ", object.path, ", found ", object.size));
  }
  for (const plugin::PlanItem& item : plan.items) {
    if (item.out_bytes > plan.objects[item.object].size)
      return invalid(cat("plan: expected items that write at most the ",
                         plan.objects[item.object].size, " bytes of ",
                         plan.objects[item.object].path, ", found ", item.out_bytes));
    const auto total = checked_add(item.memory, limits.overhead);
    if (!total || *total > limits.memory) {
      return Error{
          XD_NO_MEMORY,
          cat("expected items of work within the memory budget of ",
              base::human_memory(limits.memory), ", found ", plan.objects[item.object].path,
              " to need ", base::human_memory(total.value_or(UINT64_MAX)), ": raise --memory")};
    }
  }
  return check_tensors(plan, m);
}

uint64_t stored_bytes(const plugin::Plan& plan) {
  std::vector<uint64_t> by_item(plan.objects.size());
  for (const plugin::PlanItem& item : plan.items) by_item[item.object] += item.out_bytes;
  uint64_t sum = 0;
  for (size_t i = 0; i < plan.objects.size(); ++i) {
    const uint64_t size = plan.objects[i].size;
    const uint64_t written = std::min(by_item[i], size);
    sum += round_up(written + std::min(size - written, kDiskBlock), kDiskBlock);
  }
  return sum;
}

}  // namespace crossdock::convert
