// SPDX-License-Identifier: Apache-2.0
#include "plugins/common/ds_config.h"

#include "tests/catch.h"

using namespace crossdock;
using common::DsConfig;

namespace {

DsConfig parsed(std::string_view text) {
  auto config = DsConfig::parse(text);
  if (!config) FAIL(config.error().message);
  return *config;
}

std::string refusal(std::string_view text) {
  const auto config = DsConfig::parse(text);
  return config ? "" : config.error().message;
}

// What the optimizer section and the rest of the file make; or the refusal.
std::string made(std::string_view optimizer, std::string_view rest = "") {
  const auto name = parsed(cat(R"({"optimizer": )", optimizer, rest, "}")).adam_class();
  return name ? name->value_or("none") : name.error().message;
}

}  // namespace

TEST_CASE("ds_config: what a file leaves out has DeepSpeed's default") {
  const DsConfig config = parsed("{}");
  CHECK_FALSE(config.optimizer.value);
  CHECK_FALSE(config.lr.value);
  CHECK(config.stage.is(0));
  CHECK(config.sub_group_size.is(1'000'000'000));
  CHECK(config.offload_optimizer.is("none"));
  CHECK(config.bf16.is(false));
  CHECK(config.fp16.is(false));
  CHECK(config.loss_scale.is(0));
  CHECK(config.scale_power.is(16));
  CHECK(config.scale_window.is(1000));
  CHECK(config.hysteresis.is(2));
  CHECK(config.min_scale.is(1));
  CHECK(config.load_universal.is(false));
  CHECK(config.special.empty());
  CHECK(config.adam_class()->value_or("none") == "none");
}

TEST_CASE("ds_config: values, in every spelling that JSON has") {
  const DsConfig config = parsed(R"({
    "optimizer": {"type": "AdamW", "params": {"lr": 1, "betas": [0, 9.5e-1], "eps": 1E-6, "weight_decay": 0}},
    "zero_optimization": {"stage": 3, "sub_group_size": 1e9, "offload_optimizer": {"device": "cpu"}, "offload_param": null},
    "fp16": {"enabled": true, "loss_scale": 128, "initial_scale_power": 12, "consecutive_hysteresis": true},
    "checkpoint": {"load_universal": true}, "tensor_parallel": {"autotp_size": 2}, "train_batch_size": "auto"})");
  CHECK(config.optimizer.is("adamw"));
  CHECK(config.lr.is(1));
  CHECK(config.betas.is({0, 0.95}));
  CHECK(config.eps.is(1e-6));
  CHECK(config.weight_decay.is(0));
  CHECK(config.stage.is(3));
  CHECK(config.sub_group_size.is(1'000'000'000));
  CHECK(config.offload_optimizer.is("cpu"));
  CHECK(config.offload_param.is("none"));
  CHECK(config.fp16.is(true));
  CHECK(config.loss_scale.is(128));
  CHECK(config.scale_power.is(12));
  CHECK(config.consecutive_hysteresis.is(true));
  CHECK(config.load_universal.is(true));
  CHECK(config.autotp_size.is(2));
  CHECK(parsed(R"({"bfloat16": {"enabled": 1}})").bf16.is(true));
  CHECK(parsed(R"({"zero_optimization": true})").stage.is(1));
  CHECK(parsed(R"({"zero_optimization": {"stage": 2, "cpu_offload": true}})")
            .offload_optimizer.is("cpu"));
  CHECK(parsed(R"({"optimizer": {"type": "Lamb", "params": {"max_coeff": 10}}})")
            .optimizer.is("Lamb"));
}

TEST_CASE("ds_config: auto is no value") {
  const DsConfig config = parsed(R"({
    "optimizer": {"type": "AdamW", "params": {"lr": "auto", "betas": "auto", "eps": "auto", "weight_decay": "auto"}},
    "zero_optimization": {"stage": "auto", "sub_group_size": "auto"}, "bf16": {"enabled": "auto"}})");
  CHECK(config.lr.is_auto);
  CHECK(config.betas.is_auto);
  CHECK(config.eps.is_auto);
  CHECK(config.weight_decay.is_auto);
  CHECK(config.stage.is_auto);
  CHECK(config.sub_group_size.is_auto);
  CHECK(config.bf16.is_auto);
  CHECK_FALSE(config.bf16.value);
  CHECK_FALSE(config.fp16.is_auto);
  CHECK(
      needs_flag(config.lr, "lr").message ==
      "--ds-config: optimizer.params.lr is \"auto\", which the job's launcher fills in: give --lr");
}

TEST_CASE("ds_config: the class that runs") {
  CHECK(made(R"({"type": "Adam"})") == "fused-adam");
  CHECK(made(R"({"type": "ADAMW"})") == "fused-adam");
  constexpr const char* kOffload =
      R"(, "zero_optimization": {"offload_optimizer": {"device": "cpu"}})";
  CHECK(made(R"({"type": "AdamW"})", kOffload) == "cpu-adam");
  CHECK(made(R"({"type": "AdamW", "params": {"torch_adam": true}})", kOffload) == "adamw");
  CHECK(made(R"({"type": "Adam", "params": {"torch_adam": true}})") == "adamw");
  CHECK(made(R"({"type": "Adam", "params": {"torch_adam": true, "adam_w_mode": false}})") ==
        "adam");
  CHECK(made(R"({"type": "AdamW", "params": {"torch_adam": true, "adam_w_mode": false}})") ==
        "adamw");
  CHECK(made(R"({"type": "Adam", "params": {"adam_w_mode": false}})") == "fused-adam");
  CHECK(made(R"({"type": "AdamW"})",
             R"(, "zero_optimization": {"offload_optimizer": {"device": "nvme"}})") == "cpu-adam");
  // An optimizer of the script's own, which DeepSpeed refuses when it is offloaded and not its own.
  CHECK(made("null", kOffload) == "cpu-adam");
  CHECK(made("null", cat(kOffload, R"(, "zero_force_ds_cpu_optimizer": false)")) == "none");
  CHECK(made("null", R"(, "zero_optimization": {"offload_optimizer": {"device": "none"}})") ==
        "none");
  for (const char* type : {"Lamb", "OneBitAdam", "SGD", "Muon", "FusedAdam", "NAdam"})
    CHECK(made(cat(R"({"type": ")", type, R"("})")) ==
          cat("--ds-config: expected Adam or AdamW for optimizer.type, found \"", type,
              "\", whose state is another than Adam's"));
  CHECK(made(R"({"type": "auto"})") ==
        "--ds-config: optimizer.type is \"auto\", which the job's launcher fills in: give "
        "--optimizer");
  CHECK(made(R"({"type": "Adam", "params": {"torch_adam": "auto"}})")
            .find("torch_adam is \"auto\"") != std::string::npos);
  CHECK(made(R"({"type": "Adam"})",
             R"(, "zero_optimization": {"offload_optimizer": {"device": "auto"}})")
            .find("offload_optimizer.device is \"auto\"") != std::string::npos);
}

TEST_CASE("ds_config: what a scheduler begins with") {
  const auto first = [](std::string_view scheduler) {
    return parsed(cat(R"({"scheduler": )", scheduler, "}")).first_lr;
  };
  CHECK(first(R"({"type": "WarmupLR"})").is({0}));
  CHECK(first(R"({"type": "WarmupDecayLR", "params": {"warmup_min_lr": 1e-6}})").is({1e-6}));
  CHECK(first(R"({"type": "WarmupLR", "params": {"warmup_min_lr": [1e-6, 0]}})").is({1e-6, 0}));
  CHECK(first(R"({"type": "WarmupLR", "params": {"warmup_min_lr": "auto"}})").is_auto);
  CHECK(first(R"({"type": "WarmupCosineLR", "params": {"warmup_min_ratio": 0.5}})").is({0}));
  CHECK(first(R"({"type": "LRRangeTest"})").is({1e-3}));
  CHECK(first(R"({"type": "OneCycle", "params": {"cycle_min_lr": 0.5}})").is({0.5}));
  CHECK_FALSE(first(R"({"type": "StepLR"})").value);
  CHECK(parsed(R"({"scheduler": {"type": "OneCycle"}})").scheduler_sets_betas);
  CHECK_FALSE(parsed(R"({"scheduler": {"type": "OneCycle", "params": {"cycle_momentum": false}}})")
                  .scheduler_sets_betas);
}

TEST_CASE("ds_config: what it refuses") {
  CHECK(refusal("{").find("--ds-config: expected JSON, found 1 bytes that are not (") == 0);
  CHECK(refusal("{\"a\": 1} # a comment").find("comments and text without quotes") !=
        std::string::npos);
  CHECK(refusal("[]") == "--ds-config: expected an object, found a list");
  CHECK(refusal(R"({"optimizer": {"type": "Adam", "params": {"lr": 1, "lr": 2}}})") ==
        "--ds-config: expected each key of an object once, found \"lr\" twice");
  const auto param = [](std::string_view text) {
    return refusal(cat(R"({"optimizer": {"type": "AdamW", "params": {)", text, "}}}"));
  };
  CHECK(param(R"("lr": "2e-5")") ==
        "--ds-config: expected a number for optimizer.params.lr, found \"2e-5\"");
  CHECK(param(R"("lr": NaN)") ==
        "--ds-config: expected a number for optimizer.params.lr, found \"NaN\"");
  CHECK(param(R"("lr": true)") ==
        "--ds-config: expected a number for optimizer.params.lr, found true");
  CHECK(param(R"("betas": [0.9])") ==
        "--ds-config: expected two numbers for optimizer.params.betas, found 1");
  CHECK(param(R"("betas": ["auto", 0.9])") ==
        "--ds-config: expected a number for optimizer.params.betas, found \"auto\"");
  CHECK(param(R"("momentum": 0.9)") ==
        "--ds-config: expected the parameters of DeepSpeed's Adam, found "
        "optimizer.params.momentum, which it does not "
        "take");
  CHECK(param(R"("foreach": true)").find("DeepSpeed's Adam, found optimizer.params.foreach") !=
        std::string::npos);
  CHECK(param(R"("torch_adam": true, "bias_correction": true)").find("torch's Adam, found") !=
        std::string::npos);
  CHECK(refusal(R"({"optimizer": {"params": {"lr": 1}}})").find("expected optimizer.type beside") !=
        std::string::npos);
  CHECK(refusal(R"({"optimizer": {"type": "Adam", "params": 1}})") ==
        "--ds-config: expected an object for optimizer.params, found 1");
  CHECK(refusal(R"({"optimizer": "Adam"})") ==
        "--ds-config: expected an object for optimizer, found \"Adam\"");
  CHECK(refusal(R"({"zero_optimization": {"stage": "3"}})") ==
        "--ds-config: expected a whole number for zero_optimization.stage, found \"3\"");
  CHECK(refusal(R"({"zero_optimization": {"sub_group_size": 1.5}})").find("found 1.5") !=
        std::string::npos);
  CHECK(refusal(R"({"zero_optimization": {"sub_group_size": 1e300}})").find("a whole number") !=
        std::string::npos);
  CHECK(refusal(R"({"zero_optimization": {"offload_optimizer": {"device": "gpu"}}})")
            .find("none, cpu or nvme") != std::string::npos);
  CHECK(refusal(R"({"bf16": {"enabled": true}, "fp16": {"enabled": true}})").find("found both") !=
        std::string::npos);
}

TEST_CASE("ds_config: settings that change what the optimizer holds") {
  const auto special = [](std::string_view text) {
    const auto found = parsed(text).special;
    return found.empty() ? std::string() : found[0];
  };
  CHECK(special(R"({"bf16": {"enabled": true, "bf16_optimizer_states": true}})") ==
        "bf16.bf16_optimizer_states");
  CHECK(special(R"({"zero_optimization": {"zenflow": {}}})") == "zero_optimization.zenflow");
  CHECK(special(R"({"zero_optimization": {"offload_optimizer": {"ratio": 0.5}}})") ==
        "zero_optimization.offload_optimizer.ratio");
  CHECK(special(R"({"zero_optimization": {"offload_optimizer": {"ratio": 1}}})").empty());
  CHECK(
      special(
          R"({"optimizer": {"type": "Adam", "params": {"torch_adam": true, "amsgrad": true}}})") ==
      "optimizer.params.amsgrad");
}
