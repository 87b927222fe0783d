// SPDX-License-Identifier: Apache-2.0

// The environments are as launchers were seen to make them: Slurm 22.05 (srun, sbatch, salloc),
// Open MPI 4.1, torchrun 2.13, and as their documents say for MPICH and Kubernetes.
#include "core/convert/part.h"

#include "tests/catch.h"

#include <map>
#include <string>

using namespace crossdock;
using namespace crossdock::convert;

namespace {

using Variables = std::map<std::string, std::string>;

Result<Part> find(const Variables& variables) {
  return find_part([&](const char* name) {
    const auto at = variables.find(name);
    return at == variables.end() ? nullptr : at->second.c_str();
  });
}

// What is in both is as in the first.
Variables operator+(Variables a, const Variables& b) {
  a.insert(b.begin(), b.end());
  return a;
}

Variables step(const std::string& index, const std::string& count) {
  return {{"SLURM_JOB_ID", "17"},   {"SLURM_STEP_ID", "0"}, {"SLURM_PROCID", index},
          {"SLURM_LOCALID", index}, {"SLURM_NODEID", "0"},  {"SLURM_STEP_NUM_TASKS", count},
          {"SLURM_NTASKS", count},  {"SLURM_NPROCS", count}};
}

Variables array(const std::string& id, const std::string& count, const std::string& least,
                const std::string& most, const std::string& by = "1") {
  return {{"SLURM_JOB_ID", "18"},
          {"SLURM_PROCID", "0"},
          {"SLURM_ARRAY_JOB_ID", "17"},
          {"SLURM_ARRAY_TASK_ID", id},
          {"SLURM_ARRAY_TASK_COUNT", count},
          {"SLURM_ARRAY_TASK_MIN", least},
          {"SLURM_ARRAY_TASK_MAX", most},
          {"SLURM_ARRAY_TASK_STEP", by}};
}

// A batch script of four tasks, without srun: one process.
const Variables kBatch = {{"SLURM_JOB_ID", "17"}, {"SLURM_PROCID", "0"}, {"SLURM_LOCALID", "0"},
                          {"SLURM_NODEID", "0"},  {"SLURM_NTASKS", "4"}, {"SLURM_NPROCS", "4"}};

Variables mpirun(const std::string& rank, const std::string& size) {
  return {{"OMPI_COMM_WORLD_RANK", rank},
          {"OMPI_COMM_WORLD_SIZE", size},
          {"OMPI_COMM_WORLD_LOCAL_RANK", rank},
          {"OMPI_COMM_WORLD_LOCAL_SIZE", size},
          {"OMPI_COMM_WORLD_NODE_RANK", rank},
          {"OMPI_UNIVERSE_SIZE", "2"},
          {"PMIX_RANK", rank}};
}

Variables torchrun(const std::string& rank, const std::string& size) {
  return {{"RANK", rank},
          {"WORLD_SIZE", size},
          {"LOCAL_RANK", "0"},
          {"LOCAL_WORLD_SIZE", "2"},
          {"GROUP_RANK", "1"},
          {"GROUP_WORLD_SIZE", "2"},
          {"ROLE_RANK", rank},
          {"TORCHELASTIC_RUN_ID", "none"},
          {"MASTER_ADDR", "127.0.0.1"},
          {"MASTER_PORT", "29500"}};
}

}  // namespace

TEST_CASE("--part auto finds what each launcher says") {
  struct Row {
    const char* where;
    Variables environment;
    Part part;
  };
  const Row rows[] = {
      {"srun -n 4", step("3", "4"), {3, 4}},
      {"srun -n 2 in a job of four tasks",
       {{"SLURM_STEP_ID", "1"},
        {"SLURM_PROCID", "1"},
        {"SLURM_STEP_NUM_TASKS", "2"},
        {"SLURM_NTASKS", "4"}},
       {1, 2}},
      {"sbatch --array=0-3", array("2", "4", "0", "3"), {2, 4}},
      {"sbatch --array=2-8:2", array("6", "4", "2", "8", "2"), {2, 4}},
      {"sbatch --array=2-9:2, whose end no task has", array("8", "4", "2", "9", "2"), {3, 4}},
      {"sbatch --array=3, one alone", array("3", "1", "3", "3"), {0, 1}},
      {"sbatch --array=1-3 -n 4, no srun",
       array("3", "3", "1", "3") + Variables{{"SLURM_NTASKS", "4"}},
       {2, 3}},
      {"sbatch --array, requeued",
       array("1", "4", "0", "3") + Variables{{"SLURM_RESTART_COUNT", "1"}},
       {1, 4}},
      {"an array times srun -n 2", step("1", "2") + array("4", "4", "1", "4"), {7, 8}},
      {"an array times mpirun -n 4", mpirun("1", "4") + array("2", "3", "0", "2"), {9, 12}},
      {"mpirun -n 4, which is not its slots", mpirun("3", "4"), {3, 4}},
      {"mpirun in a batch script", mpirun("2", "4") + kBatch, {2, 4}},
      {"mpirun on several nodes, whose daemons are a Slurm step",
       mpirun("5", "8") + step("1", "2"),
       {5, 8}},
      {"mpirun within torchrun", mpirun("1", "3") + torchrun("0", "1"), {1, 3}},
      {"mpiexec of MPICH",
       {{"PMI_RANK", "2"}, {"PMI_SIZE", "4"}, {"MPI_LOCALRANKID", "2"}, {"MPI_LOCALNRANKS", "4"}},
       {2, 4}},
      {"srun --mpi=pmi2", step("2", "4") + Variables{{"PMI_RANK", "2"}, {"PMI_SIZE", "4"}}, {2, 4}},
      {"an array times srun --mpi=pmi2",
       step("2", "4") + array("1", "2", "0", "1") + Variables{{"PMI_RANK", "2"}, {"PMI_SIZE", "4"}},
       {6, 8}},
      {"torchrun --nproc-per-node 2 on two nodes", torchrun("3", "4"), {3, 4}},
      {"torchrun on each node of srun", torchrun("3", "4") + step("1", "2"), {3, 4}},
      {"torchrun in a Kubernetes job of pods",
       torchrun("3", "4") + Variables{{"JOB_COMPLETION_INDEX", "1"}},
       {3, 4}},
      {"a Kubernetes indexed job",
       {{"JOB_COMPLETION_INDEX", "0"}, {"CROSSDOCK_PARTS", "5"}},
       {0, 5}},
      {"RANK and WORLD_SIZE of nobody known, within srun",
       step("1", "4") + Variables{{"RANK", "0"}, {"WORLD_SIZE", "1"}},
       {1, 4}},
      {"the largest numbers", mpirun("999999", "1000000"), {999999, 1000000}},
  };
  for (const Row& row : rows) {
    INFO(row.where);
    const Result<Part> part = find(row.environment);
    INFO((part ? "" : part.error().message));
    REQUIRE(part);
    CHECK(part->index == row.part.index);
    CHECK(part->count == row.part.count);
  }
}

TEST_CASE("an array's tasks and their processes have all parts between them") {
  for (uint32_t i = 0; i < 4; ++i) {
    for (uint32_t p = 0; p < 3; ++p) {
      const Variables task = array(std::to_string(2 + 2 * i), "4", "2", "8", "2");
      const auto part = find(step(std::to_string(p), "3") + task);
      REQUIRE(part);
      CHECK(part->index == 3 * i + p);
      CHECK(part->count == 12);
    }
  }
}

TEST_CASE("--part auto refuses what it cannot know, and says why") {
  struct Row {
    const char* where;
    Variables environment;
    const char* says;
  };
  const Row rows[] = {
      {"nothing", {}, "found none of their variables"},
      {"sbatch -n 4, no srun: one process", kBatch, "one process whatever SLURM_NTASKS says"},
      {"the shell of salloc -n 3",
       {{"SLURM_JOB_ID", "17"}, {"SLURM_NTASKS", "3"}},
       "start the command with srun"},
      {"SLURM_NTASKS alone", {{"SLURM_NTASKS", "4"}}, "only SLURM_NTASKS"},
      {"SLURM_PROCID without a step",
       {{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "4"}},
       "only SLURM_PROCID, SLURM_NTASKS"},
      {"sbatch --array=1,5,6", array("5", "3", "1", "6"),
       "cannot tell which place SLURM_ARRAY_TASK_ID=5 has among 3"},
      {"an array's id between its steps", array("3", "4", "2", "8", "2"),
       "cannot tell which place"},
      {"an array's id before it", array("1", "4", "2", "8", "2"), "cannot tell which place"},
      {"an array's id behind it", array("10", "4", "2", "8", "2"), "cannot tell which place"},
      {"an array's step of zero", array("0", "4", "0", "3", "0"), "cannot tell which place"},
      {"an array without its count",
       {{"SLURM_ARRAY_TASK_ID", "1"}},
       "needs SLURM_ARRAY_TASK_COUNT beside SLURM_ARRAY_TASK_ID"},
      {"an array that is refused, though a step is there",
       array("5", "3", "1", "6") + step("0", "2"), "cannot tell which place"},
      {"a Kubernetes job without the count",
       {{"JOB_COMPLETION_INDEX", "0"}},
       "set CROSSDOCK_PARTS to the job's completions"},
      {"a Kubernetes job that is not indexed",
       {{"CROSSDOCK_PARTS", "4"}},
       "completionMode: Indexed"},
      {"a Kubernetes count that was not filled in",
       {{"JOB_COMPLETION_INDEX", "0"}, {"CROSSDOCK_PARTS", ""}},
       "CROSSDOCK_PARTS is \"\""},
      {"a Kubernetes index beyond the count",
       {{"JOB_COMPLETION_INDEX", "4"}, {"CROSSDOCK_PARTS", "4"}},
       "JOB_COMPLETION_INDEX=4 and CROSSDOCK_PARTS=4"},
      {"RANK and WORLD_SIZE of nobody known",
       {{"RANK", "0"}, {"WORLD_SIZE", "2"}},
       "only RANK, WORLD_SIZE"},
      {"torchrun's rank without a world",
       {{"RANK", "0"}, {"TORCHELASTIC_RUN_ID", "x"}},
       "needs WORLD_SIZE beside RANK"},
      {"mpirun's size without a rank",
       {{"OMPI_COMM_WORLD_SIZE", "2"}},
       "needs OMPI_COMM_WORLD_RANK beside OMPI_COMM_WORLD_SIZE"},
      {"a step without its size",
       {{"SLURM_STEP_ID", "0"}, {"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "4"}},
       "needs SLURM_STEP_NUM_TASKS"},
      {"a rank that is a word", mpirun("one", "4"), "OMPI_COMM_WORLD_RANK is \"one\""},
      {"a negative rank", torchrun("-1", "4"), "RANK is \"-1\""},
      {"a rank with a blank", torchrun(" 1", "4"), "RANK is \" 1\""},
      {"a size with more behind it", {{"PMI_RANK", "0"}, {"PMI_SIZE", "4x"}}, "PMI_SIZE is \"4x\""},
      {"a size that does not fit", mpirun("0", "4294967296"),
       "OMPI_COMM_WORLD_SIZE is \"4294967296\""},
      {"a world of nobody", mpirun("0", "0"), "OMPI_COMM_WORLD_SIZE=0"},
      {"a rank beyond its world", torchrun("4", "4"), "RANK=4 and WORLD_SIZE=4"},
      {"escapes of a terminal", mpirun("\x1b[2J", "4"), "\\x1b[2J"},
      {"more parts than there are numbers", step("0", "70000") + array("0", "70000", "0", "69999"),
       "too many parts"},
  };
  for (const Row& row : rows) {
    INFO(row.where);
    const Result<Part> part = find(row.environment);
    REQUIRE_FALSE(part);
    INFO(part.error().message);
    CHECK(part.error().code == XD_INVALID_ARGUMENT);
    CHECK(part.error().message.find(row.says) != std::string::npos);
    CHECK(part.error().message.find("--part i/n") != std::string::npos);
  }
}

TEST_CASE("--part i/n counts from zero") {
  CHECK(*parse_part("0/1") == Part{0, 1});
  CHECK(*parse_part("0/4") == Part{0, 4});
  CHECK(*parse_part("3/4") == Part{3, 4});
  CHECK(*parse_part("999999/1000000") == Part{999999, 1000000});

  const auto says = [](const char* text) { return parse_part(text).error().message; };
  CHECK(says("4/4") == "--part 4/4: parts are counted from 0, so the last of 4 is 3/4");
  CHECK(says("5/4").find("the last of 4 is 3/4") != std::string::npos);
  CHECK(says("0/0").find("at least one part") != std::string::npos);
  for (const char* text : {"", "/", "1", "1/", "/4", "-1/4", "+1/4", "1/-4", " 1/4", "1/4 ",
                           "1 / 4", "1/2/4", "1.0/4", "a/b", "0x1/4", "auto", "0/4294967296"}) {
    INFO(text);
    const Result<Part> part = parse_part(text);
    REQUIRE_FALSE(part);
    CHECK(part.error().message.find("--part takes i/n") != std::string::npos);
  }
}
