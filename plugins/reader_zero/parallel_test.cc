// SPDX-License-Identifier: Apache-2.0

// Checkpoints of two model-parallel ranks: what they have together.
#include "plugins/reader_zero/checkpoints_for_test.h"
#include "plugins/reader_zero/parallel_recipes_for_test.h"

using namespace crossdock;
using namespace crossdock::reader_zero::recipe;
using test::has;
using test::open;

namespace {

using Change = std::function<void(PartOf2&)>;

void put(test::MemoryHost& host, const Change& change) {
  host.inputs["latest"] = "step7";
  for (int rank = 0; rank < 2; ++rank) {
    PartOf2 part{rank};
    change(part);
    host.inputs[cat("step7/zero_pp_rank_0_mp_rank_0", rank, "_optim_states.pt")] =
        part.optimizer_file();
    host.inputs[cat("step7/mp_rank_0", rank, "_model_states.pt")] = part.model_file();
    if (!part.is_pipeline) continue;
    host.inputs[cat("step7/layer_0", 2 * rank, "-model_states.pt")] = part.layer_file();
    host.inputs["step7/layer_01-model_states.pt"] = PartOf2::tied_file();
  }
}
void put_shares(test::MemoryHost& host, const Change& change = {}) {
  put(host, [&](PartOf2& part) {
    part.info = plain_info();
    if (change) change(part);
  });
}
void put_stages(test::MemoryHost& host, const Change& change = {}) {
  put(host, [&](PartOf2& part) {
    part.is_pipeline = true;
    if (change) change(part);
  });
}

// "name = values" of each tensor, or the error.
std::string everything(test::MemoryHost& host, const test::OptionValues& options = {}) {
  const auto reader = open(host, options);
  if (!reader) return reader.error().message;
  std::string out;
  const auto& tensors = (*reader)->manifest.tensors;
  for (uint64_t i = 0; i < tensors.size(); ++i) {
    const uint64_t n = *checked_product(tensors[i].shape);
    std::string whole;
    for (uint64_t at = 0; at < n; ++at) {  // element by element, which must be as the whole is
      const auto one = (*reader)->read(dense_range(i, at, 1), 4);
      whole += one ? *one : one.error().message;
    }
    const auto values = (*reader)->read(dense_range(i, 0, n), 4 * n);
    CHECK((!values || *values == whole));
    out += cat(tensors[i].name, " = ", values ? *values : values.error().message, "\n");
  }
  return out;
}
std::string of_shares(const Change& change) {
  test::MemoryHost host;
  put_shares(host, change);
  return everything(host);
}

}  // namespace

TEST_CASE("zero: shares of tensor-parallel ranks") {
  test::MemoryHost host;
  put_shares(host);
  CHECK(everything(host) ==
        "column = a000a001b000b001\n"
        "row = a002b002a003b003\n"
        "same = s000s001\n"
        "seen = n000n001\n"
        "exp_avg/column = c000c001d000d001\n"
        "exp_avg/row = c002d002c003d003\n"
        "exp_avg/same = m000m001\n");
  const auto reader = open(host);
  REQUIRE(reader);
  const auto& m = (*reader)->manifest;
  CHECK(m.tensors[0].shape == std::vector<uint64_t>{2, 2});
  CHECK(m.tensors[5].shape == std::vector<uint64_t>{2, 2});
  CHECK(m.tensors[1].extents.size() == 2);
  CHECK(m.training.step == 4);
  REQUIRE(m.training.groups.size() == 1);
  CHECK(m.training.groups[0].tensors == std::vector<uint64_t>{0, 1, 2});
  CHECK(m.training.moments ==
        std::vector<manifest::Moment>{{"exp_avg", 0, 4}, {"exp_avg", 1, 5}, {"exp_avg", 2, 6}});
  CHECK(m.module ==
        std::vector<manifest::ModuleName>{{"column", 0}, {"row", 1}, {"same", 2}, {"seen", 3}});
}

TEST_CASE("zero: the job's own copy of shares, with strides in its file") {
  test::MemoryHost host;
  put_shares(host);
  const std::string out = everything(host, {{"weights", "model"}});
  CHECK(has(out, "column = A000A001B000B001\nrow = A002B002A003B003\nsame = S000S001\n"));
}

TEST_CASE("zero: shares that have drifted apart, and means of shares") {
  const auto drifted = [](PartOf2& part) { part.same = elements('s', part.rank, part.rank + 2); };
  CHECK(has(of_shares(drifted),
            "same = tensor \"same\": expected the same values on all ranks that hold it, found "
            "others on mp_rank_01, first at element 0: the ranks' copies have drifted apart"));
  const auto two = [](float a, float b) {
    std::string out;
    put_le(out, std::bit_cast<uint32_t>(a));
    put_le(out, std::bit_cast<uint32_t>(b));
    return out;
  };
  const std::string mean = of_shares([&](PartOf2& part) {
    part.same = part.rank == 0 ? two(1, -3) : two(2, 5);
    part.info = info_of({{"parameter_to_average_patterns", "same"},
                         {"parameter_with_row_parallelism_patterns", "row"}});
  });
  CHECK(has(mean, "\nsame = " + two(1.5, 1) + "\n"));
}

TEST_CASE("zero: layers of pipeline stages") {
  test::MemoryHost host;
  put_stages(host);
  CHECK(everything(host) ==
        "tied_modules.t.w = s000s001\n"
        "0.w = a000a001a002a003\n"
        "0.seen = n000n001\n"
        "2.w = b000b001b002b003\n"
        "2.seen = n002n003\n"
        "exp_avg/0.w = c000c001c002c003\n"
        "exp_avg/tied_modules.t.w = m000m001\n"
        "exp_avg/2.w = d000d001d002d003\n");
  const auto reader = open(host);
  REQUIRE(reader);
  const auto& m = (*reader)->manifest;
  CHECK(m.module ==
        std::vector<manifest::ModuleName>{
            {"tied_modules.t.w", 0}, {"0.w", 1}, {"2.w", 3}, {"0.seen", 2}, {"2.seen", 4}});
  CHECK(m.training.groups[0].tensors == std::vector<uint64_t>{1, 0, 3});
  CHECK(has(everything(host, {{"weights", "model"}}),
            "tied_modules.t.w = S000S001\n0.w = A000A001A002A003\n"));
}

TEST_CASE("zero: tied weights that have drifted apart") {
  const auto outcome = [](const std::string& info) {
    test::MemoryHost host;
    put_stages(host, [&](PartOf2& part) {
      part.info = info;
      part.same = elements('s', part.rank, part.rank + 2);
    });
    return everything(host);
  };
  CHECK(has(outcome("N"), "found others on mp_rank_01, first at element 0"));
  // Where the job says that they are replicated, those of the first stage count, as in DeepSpeed.
  CHECK(has(outcome(info_of({{"pipeline_replicated_parameter_patterns", "tied_modules"}})),
            "tied_modules.t.w = s000s001\n"));
}

TEST_CASE("zero: model-parallel ranks that are missing, or do not fit") {
  const auto without = [](const std::string& name) {
    test::MemoryHost host;
    put_stages(host);
    host.inputs.erase("step7/" + name);
    return everything(host);
  };
  CHECK(has(without("zero_pp_rank_0_mp_rank_01_optim_states.pt"),
            "expected the optimizer states of mp_rank_01, found none"));
  CHECK(has(without("mp_rank_01_model_states.pt"), "expected step7/mp_rank_01_model_states.pt"));
  test::MemoryHost host;
  put_stages(host);
  std::erase_if(host.inputs, [](const auto& input) { return has(input.first, "layer_"); });
  CHECK(has(everything(host), "or of a pipeline in files layer_00-model_states.pt, found neither"));
  const auto second = [](const Change& change) {
    return of_shares([&](PartOf2& part) {
      if (part.rank == 1) change(part);
    });
  };
  CHECK(second([](PartOf2& part) { part.global_steps = 8; }) ==
        "mp_rank_01: expected global_steps 7 as rank 0 has, found 8: the files are of different "
        "saves");
  CHECK(has(of_shares([](PartOf2& part) { part.info = "N"; }),
            "expected universal_checkpoint_info in mp_rank_00's model states, which tells how 2 "
            "tensor-parallel ranks share each parameter, found none"));
  CHECK(has(of_shares([](PartOf2& part) {
              part.dimensions = dict({text("pp_degree"), number(1), text("tp_degree"), number(4)});
            }),
            "expected the files of 4 model-parallel ranks, found none of mp_rank_02, mp_rank_03"));
  CHECK(has(of_shares([](PartOf2& part) {
              part.dimensions = dict({text("pp_degree"), number(0), text("tp_degree"), number(0)});
            }),
            "expected model-parallel ranks that 0 tensor-parallel ranks divide, found 0"));
}

TEST_CASE("zero: what is refused of universal_checkpoint_info") {
  const auto with = [](const std::string& key, const std::string& value) {
    return of_shares([&](PartOf2& part) { part.info = dict({text(key), value}); });
  };
  CHECK(has(with("tp_replicated_parameter_patterns", list({number(1)})),
            "universal_checkpoint_info.tp_replicated_parameter_patterns: expected patterns"));
  CHECK(has(with("tp_replicated_parameter_patterns", list({text("(")})), "a '(' without a ')'"));
  CHECK(has(with("autotp_unsupported_parameter_patterns", dict({text("x"), text("odd")})),
            "found \"x\", of which DeepSpeed says that they cannot: \"odd\""));
  CHECK(has(with("affine_map", dict({text("version"), number(2)})), "expected version 1, found 2"));
  CHECK(has(with("affine_map", dict({text("params"), dict({text("x"), dict({})})})),
            "universal_checkpoint_info.affine_map.params.x.logical_shape: expected a list of"));
  CHECK(has(with("parameter_with_sub_params",
                 list({dict({text("patterns"), list({text("x")}), text("shape"), list({number(2)}),
                             text("partition_dim"), number(1)})})),
            "expected a partition_dim of its shape"));
}
