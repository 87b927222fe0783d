// SPDX-License-Identifier: Apache-2.0
#include <crossdock/part_name.hpp>

#include "tests/catch.h"

using crossdock::part_name;

TEST_CASE("part names: any number of digits, before the suffix or a variant") {
  struct Expected {
    const char* name;
    uint64_t number, total;
  };
  for (const auto& [name, number, total] :
       {Expected{"model-00002-of-00010.safetensors", 2, 10},
        {"model-00001-of-000163.safetensors", 1, 163},
        {"model-1-of-2.safetensors", 1, 2},
        {"pytorch_model_00001-of-00002.bin", 1, 2},
        {"m_1_of_2.pt", 1, 2},
        {"diffusion_pytorch_model-00001-of-00002.fp16.safetensors", 1, 2},
        {"shard-00001-model-00003-of-00004.safetensors", 3, 4},
        {"a.0-of-2", 0, 2}}) {
    CAPTURE(name);
    const auto part = part_name(name);
    REQUIRE(part);
    CHECK(part->number == number);
    CHECK(part->total == total);
    CHECK(part->sibling(number) == name);
  }
}

TEST_CASE("part names: what is none") {
  for (const char* name : {"model.safetensors", "model-0000x-of-00002.bin", "model-of-2.bin",
                           "model-1-of-.bin", "00001-of-00002.bin", "-of-", "best-of-3.bin",
                           "model-1-of-2x.bin", "model1-of-2.bin", "m-1234567890-of-2.bin", ""}) {
    CAPTURE(name);
    CHECK_FALSE(part_name(name));
  }
}

TEST_CASE("part names: siblings") {
  const auto part = part_name("model-00002-of-00010.safetensors");
  REQUIRE(part);
  CHECK(part->sibling(10) == "model-00010-of-00010.safetensors");
  CHECK(part->is_sibling(*part_name("model-00001-of-00010.safetensors")));
  CHECK_FALSE(part->is_sibling(*part_name("model-00001-of-00011.safetensors")));
  CHECK_FALSE(part->is_sibling(*part_name("model.fp16-00001-of-00010.safetensors")));
  CHECK(part_name("m-9-of-12.bin")->sibling(10) == "m-10-of-12.bin");
}
