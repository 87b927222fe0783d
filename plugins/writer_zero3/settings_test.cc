// SPDX-License-Identifier: Apache-2.0
#include "plugins/writer_zero3/settings.h"

#include "plugins/writer_zero3/hyper_parameters.h"
#include "tests/catch.h"

using namespace crossdock;
using namespace crossdock::writer_zero3;
using manifest::DType;
using manifest::ParameterGroup;
using manifest::TrainingState;

namespace {

using Given = std::vector<std::pair<std::string, std::string>>;

// From the schema's defaults and these.
Result<Settings> settings(Given given) {
  std::vector<xd_option> options;
  given.insert(given.begin(), {"world-size", "2"});
  for (auto option = kOptions; *option; ++option) {
    if ((*option)->fallback)
      options.push_back({XD_INIT_SIZE(xd_option), 0, (*option)->name, (*option)->fallback});
  }
  for (const auto& [key, value] : given)
    options.push_back({XD_INIT_SIZE(xd_option), 0, key.c_str(), value.c_str()});
  std::vector<const xd_option*> pointers;
  for (const auto& option : options) pointers.push_back(&option);
  pointers.push_back(nullptr);
  return Settings::from(Options(pointers.data()));
}

Given config(const std::string& optimizer_params, const std::string& rest = "") {
  return {{"ds-config",
           cat(R"({"zero_optimization": {"stage": 3}, "optimizer": {"type": "AdamW", "params": {)",
               optimizer_params, "}}", rest, "}")}};
}

Given operator+(Given a, const Given& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

std::string refusal(const Given& given) {
  const auto s = settings(given);
  return s ? "" : s.error().message;
}

ParameterGroup group(std::vector<manifest::KeyValue> own = {}) { return {{0}, std::move(own)}; }

// "lr 1 betas 0.9,0.999 ..." of each group; or the refusal.
std::string completed(const Given& given, std::vector<ParameterGroup> groups = {group()},
                      std::string described = "") {
  auto s = settings(given);
  if (!s) return s.error().message;
  TrainingState training;
  training.groups = std::move(groups);
  training.optimizer = described;
  const auto optimizer = choose_optimizer(*s, described);
  if (!optimizer) return optimizer.error().message;
  const auto notes = complete_groups(*s, *optimizer, training);
  if (!notes) return notes.error().message;
  const auto number = [](const manifest::Value& value) {
    std::string text = std::to_string(*value.get<double>());
    text.erase(text.find_last_not_of('0') + 1);
    return text.back() == '.' ? text + "0" : text;
  };
  std::string out;
  for (const ParameterGroup& g : training.groups) {
    for (const auto& [key, value] : g.hyper_parameters) {
      if (key == "lr" || key == "weight_decay")
        out += cat(out.empty() ? "" : " ", key, " ", number(value));
    }
  }
  return out;
}

bool has(const std::string& text, std::string_view part) { return text.find(part) != text.npos; }

}  // namespace

TEST_CASE("zero3 settings: flags, then the config, then defaults") {
  CHECK(settings({})->dtype == DType::BF16);
  CHECK(settings({})->sub_group_size == 1'000'000'000);
  CHECK_FALSE(settings({})->optimizer);
  const Given job{
      {"ds-config",
       R"({"zero_optimization": {"stage": 3, "sub_group_size": 0}, "fp16": {"enabled": true, "hysteresis": 4},
                                    "optimizer": {"type": "Adam"}})"}};
  const Settings s = *settings(job);
  CHECK(s.dtype == DType::F16);
  CHECK(s.sub_group_size == 0);
  CHECK(s.optimizer == Optimizer::kFusedAdam);
  CHECK(s.loss_scale.hysteresis == 4);
  CHECK(s.loss_scale.fixed == 0);
  const Settings over =
      *settings(job + Given{{"dtype", "fp32"}, {"sub-group-size", "7"}, {"optimizer", "adam"}});
  CHECK(over.dtype == DType::F32);
  CHECK(over.sub_group_size == 7);
  CHECK(over.optimizer == Optimizer::kAdam);
  CHECK(settings({{"ds-config", R"({"zero_optimization": {"stage": 3}})"}})->dtype == DType::F32);
}

TEST_CASE("zero3 settings: fp16's loss scale") {
  const auto scale = [](const std::string& fp16, const Given& flags = {}) {
    return settings(Given{{"ds-config",
                           cat(R"({"zero_optimization": {"stage": 3}, "fp16": {"enabled": true, )",
                               fp16, "}}")}} +
                    flags)
        ->loss_scale;
  };
  CHECK(scale(R"("loss_scale": 128)").fixed == 128);
  CHECK(scale(R"("loss_scale": 128)", {{"loss-scale-power", "3"}}).fixed == 0);
  CHECK(scale(R"("initial_scale_power": 20, "min_loss_scale": 4)").power == 20);
  CHECK(scale(R"("initial_scale_power": 20, "min_loss_scale": 4)").least == 4);
  CHECK(scale(R"("loss_scale": "auto", "consecutive_hysteresis": true)").consecutive_hysteresis);
  CHECK(
      refusal(
          {{"ds-config",
            R"({"zero_optimization": {"stage": 3}, "fp16": {"enabled": true, "initial_scale_power": 63}})"}}) ==
      "--ds-config: fp16.initial_scale_power: expected 0 to 62, found 63");
  CHECK(
      refusal(
          {{"ds-config",
            R"({"zero_optimization": {"stage": 3}, "fp16": {"enabled": true, "loss_scale": -1}})"}}) ==
      "--ds-config: fp16.loss_scale: expected 0 or more, found -1.000000");
}

TEST_CASE("zero3 settings: auto asks for the flag by its name") {
  const auto asks = [](const std::string& text, const std::string& flag, const std::string& value) {
    const Given job{{"ds-config", text}};
    INFO(text);
    CHECK(has(refusal(job), cat("is \"auto\", which the job's launcher fills in: give --", flag)));
    CHECK(refusal(job + Given{{flag, value}}) == "");
  };
  const std::string zero = R"({"zero_optimization": {"stage": 3)";
  asks(zero + R"(, "sub_group_size": "auto"}})", "sub-group-size", "5");
  asks(zero + R"(}, "bf16": {"enabled": "auto"}})", "dtype", "bf16");
  asks(zero + R"(}, "fp16": {"enabled": "auto"}})", "dtype", "fp16");
  asks(zero + R"(}, "fp16": {"enabled": true, "initial_scale_power": "auto"}})", "loss-scale-power",
       "16");
  asks(zero + R"(}, "fp16": {"enabled": true, "loss_scale_window": "auto"}})", "loss-scale-window",
       "16");
  asks(zero + R"(}, "fp16": {"enabled": true, "hysteresis": "auto"}})", "hysteresis", "2");
  asks(zero + R"(, "offload_optimizer": {"device": "auto"}}, "optimizer": {"type": "AdamW"}})",
       "optimizer", "cpu-adam");
  // Of fp16 nothing is needed when it is off.
  CHECK(
      refusal(
          {{"ds-config",
            zero +
                R"(}, "bf16": {"enabled": true}, "fp16": {"enabled": "auto", "hysteresis": "auto"}})"}}) ==
      "");
  for (const char* key : {"lr", "eps", "weight_decay", "betas"}) {
    const std::string flag = key == std::string("weight_decay") ? "weight-decay" : key;
    const Given job =
        config(cat(key == std::string("lr") ? "" : R"("lr": 1, )", '"', key, R"(": "auto")"));
    CHECK(completed(job) == cat("--ds-config: optimizer.params.", key,
                                " is \"auto\", which the job's launcher fills in: give --", flag));
    CHECK_FALSE(has(completed(job + Given{{flag, key == std::string("betas") ? "0.5,0.6" : "0.5"}}),
                    "expected"));
  }
}

TEST_CASE("zero3 settings: jobs that such shards are not for") {
  const auto zero = [](const std::string& text) {
    return refusal({{"ds-config", R"({"zero_optimization": {)" + text + "}}"}});
  };
  CHECK(zero(R"("stage": 2)") ==
        "--ds-config: expected zero_optimization.stage 3 for --to zero3, found 2: use --to "
        "universal");
  CHECK(has(zero(R"("stage": "auto")"), "found \"auto\": tell the job's stage in the file"));
  CHECK(has(zero(""), "found 0: tell the job's stage"));
  CHECK(has(zero(R"("stage": 3, "offload_optimizer": {"device": "nvme"})"),
            "device nvme: begin it with from_pretrained"));
  CHECK(has(zero(R"("stage": 3, "zenflow": {})"), "found zero_optimization.zenflow"));
  CHECK(has(
      refusal({{"ds-config",
                R"({"zero_optimization": {"stage": 3}, "tensor_parallel": {"autotp_size": 2}})"}}),
      "found tensor_parallel.autotp_size: use --to universal"));
  CHECK(has(refusal({{"ds-config",
                      R"({"zero_optimization": {"stage": 3}, "optimizer": {"type": "Lion"}})"},
                     {"optimizer", "adamw"}}),
            "found \"Lion\""));
}

TEST_CASE("zero3 groups: lr and weight decay come from somewhere") {
  CHECK(completed({}) ==
        "loading such shards replaces the job's learning rate and weight decay by the "
        "checkpoint's, and nothing "
        "tells the "
        "job's: give --ds-config FILE (its DeepSpeed config), or --lr and --weight-decay");
  CHECK(has(completed({{"lr", "0.5"}}), "or --weight-decay"));
  CHECK(completed({{"lr", "0.5"}, {"weight-decay", "0"}}) == "lr 0.5 weight_decay 0.0");
  CHECK(completed(config(R"("lr": 2)")) == "lr 2.0 weight_decay 0.0");  // FusedAdam's
  CHECK(completed(config(R"("lr": 2, "torch_adam": true)")) == "lr 2.0 weight_decay 0.01");
  CHECK(completed(config(R"("lr": 2, "weight_decay": 0.5)")) == "lr 2.0 weight_decay 0.5");
  CHECK(completed(config(R"("lr": 2, "weight_decay": 0.5)") + Given{{"lr", "0.25"}}) ==
        "lr 0.25 weight_decay 0.5");
  CHECK(has(completed(config("")), "nothing tells the job's: give --lr"));
  CHECK(has(completed({{"ds-config", R"({"zero_optimization": {"stage": 3}})"}}),
            "give --lr and --weight-decay"));
}

TEST_CASE("zero3 groups: values of their own") {
  const manifest::KeyValue none{"weight_decay", {0.0}}, some{"weight_decay", {0.5}},
      lr{"lr", {3.0}};
  // Groups without an optimizer say what differs from the optimizer's default.
  CHECK(completed({{"lr", "1"}, {"weight-decay", "0.25"}}, {group(), group({none})}) ==
        "lr 1.0 weight_decay 0.25 weight_decay 0.0 lr 1.0");
  CHECK(completed({{"lr", "1"}}, {group({some}), group({none})}) ==
        "weight_decay 0.5 lr 1.0 weight_decay 0.0 lr 1.0");
  CHECK(completed(config(R"("lr": 2)"), {group({lr}), group()}) ==
        "lr 3.0 weight_decay 0.0 lr 2.0 weight_decay 0.0");
  CHECK(completed({{"lr", "1"}, {"weight-decay", "0"}}, {group({lr})}) ==
        "--lr 1: expected a group that it is for, found that every group has its own (3): leave it "
        "out, or change the "
        "groups");
  // An optimizer tells its default in every group.
  const std::string adamw = "torch.optim.adamw.AdamW";
  CHECK(completed({}, {group({lr, some}), group({lr, none})}, adamw) ==
        "lr 3.0 weight_decay 0.5 lr 3.0 weight_decay 0.0");
  CHECK(completed({{"lr", "1"}}, {group({lr, some}), group({lr, none})}, adamw) ==
        "lr 1.0 weight_decay 0.5 lr 1.0 weight_decay 0.0");
  CHECK(completed({{"weight-decay", "0.5"}}, {group({lr, some}), group({lr, none})}, adamw) ==
        "lr 3.0 weight_decay 0.5 lr 3.0 weight_decay 0.0");
  CHECK(has(completed({{"weight-decay", "0.1"}}, {group({lr, some}), group({lr, none})}, adamw),
            "its own (0.5 and 0)"));
  const std::string torchs = R"("torch_adam": true, "weight_decay": 0.5, )";
  CHECK(completed(config(torchs + R"("lr": 3)"), {group({lr, some})}, adamw) ==
        "lr 3.0 weight_decay 0.5");
  CHECK(completed(config(torchs + R"("lr": 2)"), {group({lr, some})}, adamw) ==
        "expected the same lr in --ds-config and --target, found 2 and 3: give --lr, or leave one "
        "of the two out");
  CHECK(completed(config(torchs + R"("lr": 2)") + Given{{"lr", "2"}}, {group({lr, some})}, adamw) ==
        "lr 2.0 weight_decay 0.5");
}

TEST_CASE("zero3 groups: amsgrad keeps a moment that is not written") {
  const ParameterGroup amsgrad =
      group({{"lr", {1.0}}, {"weight_decay", {0.0}}, {"amsgrad", {true}}});
  CHECK(has(completed({}, {amsgrad}, "torch.optim.adamw.AdamW"),
            "expected an optimizer without amsgrad"));
}

TEST_CASE("zero3 groups: the class is the described one") {
  const auto chosen = [](const Given& given, const char* described) {
    const auto optimizer = choose_optimizer(*settings(given), described);
    return optimizer ? static_cast<int>(*optimizer) : -1;
  };
  CHECK(chosen({}, "") == static_cast<int>(Optimizer::kAdamW));
  CHECK(chosen({}, "deepspeed.ops.adam.fused_adam.FusedAdam") ==
        static_cast<int>(Optimizer::kFusedAdam));
  CHECK(chosen({{"optimizer", "adam"}}, "torch.optim.adam.Adam") ==
        static_cast<int>(Optimizer::kAdam));
  CHECK(chosen({{"optimizer", "adamw"}}, "torch.optim.adam.Adam") == -1);
  CHECK(chosen(config(""), "torch.optim.adamw.AdamW") ==
        -1);  // of the config DeepSpeed makes a FusedAdam
  CHECK(chosen({}, "torch.optim.sgd.SGD") == -1);
  CHECK(has(completed({}, {group()}, "torch.optim.sgd.SGD"),
            "found the optimizer \"torch.optim.sgd.SGD\""));
  CHECK(has(completed({{"optimizer", "adam"}}, {group()}, "AdamW"),
            "describes, \"AdamW\", found torch's Adam of --optimizer: give --optimizer as it is"));
  CHECK(has(completed(config(""), {group()}, "AdamW"),
            "found DeepSpeed's FusedAdam (DeepSpeed's choice by --ds-config"));
}

TEST_CASE("zero3 groups: a scheduler's first lr") {
  const auto with = [](const std::string& scheduler) {
    return config(R"("lr": 2)", cat(R"(, "scheduler": {"type": )", scheduler, "}"));
  };
  CHECK(completed(with(R"("WarmupLR")")) == "lr 0.0 weight_decay 0.0");
  CHECK(completed(with(R"("WarmupLR", "params": {"warmup_min_lr": [0.5, 0.25]})"),
                  {group(), group()}) == "lr 0.5 weight_decay 0.0 lr 0.25 weight_decay 0.0");
  CHECK(has(completed(with(R"("WarmupLR", "params": {"warmup_min_lr": [0.5, 0.25]})")),
            "for each of the 1 optimizer groups"));
  CHECK(completed(with(R"("WarmupLR")") + Given{{"lr", "1"}}) == "lr 1.0 weight_decay 0.0");
  CHECK(has(completed(with(R"("WarmupLR", "params": {"warmup_min_lr": "auto"})")),
            "warmup_min_lr is \"auto\""));
  CHECK(has(completed(with(R"("StepLR")")), "found \"StepLR\": give --lr, that of the first step"));
  CHECK(has(completed(with(R"("OneCycle", "params": {"cycle_min_lr": 1})")),
            "give --betas as they are at the first step"));
  // Whatever the optimizer's is, so it need not be known.
  CHECK(completed(config(R"("lr": "auto")", R"(, "scheduler": {"type": "WarmupLR"})")) ==
        "lr 0.0 weight_decay 0.0");
}
