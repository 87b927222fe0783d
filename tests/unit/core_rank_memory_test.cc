// SPDX-License-Identifier: Apache-2.0
#include "core/model/rank_memory.h"

#include "tests/unit/core_test_support.h"

using namespace crossdock;
using manifest::DType;
using manifest::Manifest;
using manifest::Role;
using model::rank_memory;

namespace {

void put(Manifest& m, const std::string& key, manifest::Value value) {
  m.source.metadata.push_back({key, std::move(value)});
}

// 1000 trained elements, 100 frozen ones, two moments of 1000 elements each; one name is tied.
Manifest job(uint64_t stage, uint64_t n_ranks) {
  Manifest m;
  const auto add = [&](uint64_t n, DType dtype, Role role) -> manifest::Tensor& {
    manifest::Tensor& t = m.tensors.emplace_back();
    t.dtype = dtype;
    t.shape = {n};
    t.role = role;
    return t;
  };
  add(1000, DType::F32, Role::kParameter);
  add(1000, DType::F32, Role::kParameter);
  add(100, DType::BF16, Role::kParameter).train = manifest::Training::kFrozen;
  add(1000, DType::F32, Role::kOptimizerState);
  add(1000, DType::F32, Role::kOptimizerState);
  add(7, DType::F32, Role::kBuffer);
  m.alias_groups = {{{0, 1}}};
  put(m, "zero_stage", {stage});
  put(m, "dp_world_size", {n_ranks});
  return m;
}

}  // namespace

TEST_CASE("stage by stage more is cut among the ranks") {
  const uint64_t stage = GENERATE(1, 2, 3);
  Manifest m = job(stage, 4);
  put(m, "dtype", {std::string("bf16")});
  const auto memory = rank_memory(m);
  REQUIRE(memory);
  CHECK(memory->optimizer == 12 * 1000 / 4);
  CHECK(memory->gradients == (stage >= 2 ? 2 * 1000 / 4 : 2 * 1000));
  CHECK(memory->weights == (stage == 3 ? 2 * 1100 / 4 : 2 * 1100));
  CHECK(memory->total() == memory->weights + memory->gradients + memory->optimizer);
}

TEST_CASE("without the job's type the weights count as the checkpoint has them") {
  CHECK(rank_memory(job(1, 4))->weights == 4 * 1000 + 2 * 100);
}

TEST_CASE("FSDP cuts everything, and has no second weights") {
  Manifest m = job(0, 4);
  CHECK_FALSE(rank_memory(m));
  m.source.format = "dcp";
  CHECK(rank_memory(m)->weights == (4 * 1000 + 2 * 100) / 4);
  CHECK(rank_memory(m)->gradients == 4 * 1000 / 4);
  CHECK(rank_memory(m)->optimizer == 8 * 1000 / 4);
}

TEST_CASE("slices of tensor parallelism divide all") {
  Manifest m = job(2, 4);
  put(m, "mp_world_size", {int64_t{2}});
  CHECK(rank_memory(m)->optimizer == 12 * 1000 / 8);
  CHECK(rank_memory(m)->weights == (4 * 1000 + 2 * 100) / 2);
}

TEST_CASE("a model that no job saved has no memory per rank") {
  CHECK_FALSE(rank_memory(Manifest()));
  CHECK_FALSE(rank_memory(job(0, 4)));
  CHECK_FALSE(rank_memory(job(3, 0)));
}
