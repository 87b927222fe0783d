// SPDX-License-Identifier: Apache-2.0
#include "core/convert/part.h"

#include "core/base/text.h"

#include <charconv>
#include <limits>
#include <optional>
#include <string_view>

namespace crossdock::convert {
namespace {

constexpr char kInstead[] = "say which part this is with --part i/n, i from 0 to n-1";

// One way in which processes are told which of how many they are.
struct Launcher {
  const char* index;
  const char* count;
  const char* only_with;  // a variable without which the other two may mean something else
};

// Innermost first. Ranks of mpirun on several nodes inherit the numbers of the Slurm step that
// started mpirun's daemons, and in a batch script SLURM_PROCID is 0 for all, so Slurm comes last.
// SLURM_NTASKS is not here: a batch script has it too, and is one process only.
constexpr Launcher kLaunchers[] = {
    {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", nullptr},
    {"RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID"},
    {"PMI_RANK", "PMI_SIZE", nullptr},
    {"SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_ID"},
};

constexpr char kArrayTask[] = "SLURM_ARRAY_TASK_ID";
constexpr char kJobIndex[] = "JOB_COMPLETION_INDEX";
constexpr char kParts[] = "CROSSDOCK_PARTS";

std::optional<uint32_t> number(std::string_view text) {
  uint32_t out = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return out;
}

// The number in a variable that must be there because `reason` is.
Result<uint32_t> number_of(const Environment& environment, const char* name, const char* reason) {
  const char* value = environment(name);
  if (value == nullptr) {
    return invalid(
        cat("--part auto needs ", name, " beside ", reason, ", and it is not set; ", kInstead));
  }
  const auto found = number(value);
  if (!found) {
    return invalid(cat("--part auto found that ", name, " is \"", base::printable(value),
                       "\", no number of a part; ", kInstead));
  }
  return *found;
}

Result<Part> pair_of(const Environment& environment, const char* index_name,
                     const char* count_name) {
  XD_TRY_SET(const uint32_t index, number_of(environment, index_name, count_name));
  XD_TRY_SET(const uint32_t count, number_of(environment, count_name, index_name));
  if (index >= count) {
    return invalid(cat("--part auto found ", index_name, "=", index, " and ", count_name, "=",
                       count, ", but an index counts from 0 and is below the number of parts; ",
                       kInstead));
  }
  return Part{index, count};
}

// The place of a task in its array. Slurm gives ids, of which only a regular array says what place
// each has: in 1,5,6 nobody can tell that 5 is the second.
Result<Part> array_part(const Environment& environment) {
  const auto get = [&](const char* name) { return number_of(environment, name, kArrayTask); };
  XD_TRY_SET(const uint64_t id, get(kArrayTask));
  XD_TRY_SET(const uint64_t count, get("SLURM_ARRAY_TASK_COUNT"));
  XD_TRY_SET(const uint64_t least, get("SLURM_ARRAY_TASK_MIN"));
  XD_TRY_SET(const uint64_t most, get("SLURM_ARRAY_TASK_MAX"));
  XD_TRY_SET(const uint64_t step, get("SLURM_ARRAY_TASK_STEP"));
  const bool regular = step > 0 && least <= id && id <= most && (id - least) % step == 0 &&
                       (most - least) / step + 1 == count;
  if (!regular) {
    return invalid(cat("--part auto cannot tell which place ", kArrayTask, "=", id, " has among ",
                       count, " from ", least, " to ", most, " in steps of ", step,
                       "; make the array regular, as 0-3 or 2-8:2 are, or ", kInstead));
  }
  return Part{static_cast<uint32_t>((id - least) / step), static_cast<uint32_t>(count)};
}

Result<Part> times(const Part& outer, const Part& inner) {
  const uint64_t count = uint64_t{outer.count} * inner.count;
  if (count > std::numeric_limits<uint32_t>::max()) {
    return invalid(cat("--part auto found ", outer.count, " array tasks of ", inner.count,
                       " processes, which are too many parts; ", kInstead));
  }
  const uint64_t index = uint64_t{outer.index} * inner.count + inner.index;
  return Part{static_cast<uint32_t>(index), static_cast<uint32_t>(count)};
}

// Why nothing was found, by what half a sign there is.
Error nothing_found(const Environment& environment) {
  const auto set = [&](const char* name) { return environment(name) != nullptr; };
  if (set(kJobIndex)) {
    return invalid(cat("--part auto found ", kJobIndex,
                       " of a Kubernetes job, which does not say of how many; set ", kParts,
                       " to the job's completions, or ", kInstead));
  }
  if (set(kParts)) {
    return invalid(cat("--part auto found ", kParts, ", but no ", kJobIndex,
                       ", which a Kubernetes job has with completionMode: Indexed; ", kInstead));
  }
  if (set("SLURM_JOB_ID")) {
    return invalid(cat(
        "--part auto found a Slurm job's own shell (SLURM_JOB_ID), which is one process whatever "
        "SLURM_NTASKS says; start the command with srun, submit an array, or ",
        kInstead));
  }
  std::string seen;
  for (const char* name : {"RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS"}) {
    if (set(name)) seen += cat(seen.empty() ? "only " : ", ", name);
  }
  if (seen.empty()) seen = "none of their variables";
  return invalid(
      cat("--part auto looks for what Open MPI, torchrun, MPICH, srun, a Slurm array or a "
          "Kubernetes indexed job set, and found ",
          seen, "; ", kInstead));
}

}  // namespace

namespace {

// Beyond it something else is wrong.
constexpr uint32_t kMaxParts = 1'000'000;

Result<Part> checked(Result<Part> part) {
  if (!part || part->count <= kMaxParts) return part;
  return invalid(cat("--part: expected at most ", kMaxParts, " parts, found ", part->count));
}

}  // namespace

Result<Part> parse_part(const std::string& text) {
  const size_t slash = text.find('/');
  const auto index = number(std::string_view(text).substr(0, slash));
  const auto count =
      slash == std::string::npos ? std::nullopt : number(std::string_view(text).substr(slash + 1));
  if (!index || !count) {
    return invalid(cat("--part takes i/n, as 0/4 is the first of four, or auto, not \"",
                       base::printable(text), "\""));
  }
  if (*count == 0) return invalid(cat("--part ", text, ": there is at least one part, as in 0/1"));
  if (*index >= *count) {
    return invalid(cat("--part ", text, ": parts are counted from 0, so the last of ", *count,
                       " is ", *count - 1, "/", *count));
  }
  return checked(Part{*index, *count});
}

Result<Part> find_part(const Environment& environment) {
  const auto set = [&](const char* name) { return environment(name) != nullptr; };
  std::optional<Part> inner;
  for (const Launcher& launcher : kLaunchers) {
    if (inner || (launcher.only_with != nullptr && !set(launcher.only_with))) continue;
    if (!set(launcher.index) && !set(launcher.count)) continue;
    XD_TRY_SET(inner, pair_of(environment, launcher.index, launcher.count));
  }
  if (set(kArrayTask)) {
    XD_TRY_SET(const Part outer, array_part(environment));
    return checked(times(outer, inner.value_or(Part{})));
  }
  if (inner) return checked(*inner);
  if (set(kJobIndex) && set(kParts)) return checked(pair_of(environment, kJobIndex, kParts));
  return nothing_found(environment);
}

}  // namespace crossdock::convert
