// SPDX-License-Identifier: Apache-2.0
#include "plugins/writer_universal/settings.h"

#include <string>
#include <vector>

#include "tests/catch.h"

using namespace crossdock;
using namespace crossdock::writer_universal;

namespace {

// The settings from the defaults and these; or the error's text.
struct Parsed {
  Settings settings;
  std::string error;
};
Parsed parse(const std::vector<std::pair<std::string, std::string>>& given) {
  std::vector<xd_option> options;
  for (auto option = kOptions; *option; ++option)
    options.push_back({XD_INIT_SIZE(xd_option), 0, (*option)->name, (*option)->fallback});
  for (const auto& [key, value] : given)
    options.push_back({XD_INIT_SIZE(xd_option), 0, key.c_str(), value.c_str()});
  std::vector<const xd_option*> pointers;
  for (const auto& option : options) pointers.push_back(&option);
  pointers.push_back(nullptr);
  auto result = Settings::from(Options(pointers.data()));
  return result ? Parsed{*result, ""} : Parsed{{}, result.error().message};
}

bool holds(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

std::string check_names(const std::vector<std::string>& targets) {
  std::vector<manifest::Tensor> tensors;
  std::vector<uint64_t> indexes;
  for (const std::string& target : targets) {
    tensors.emplace_back().name = cat("t", indexes.size());
    tensors.back().target_name = target;
    indexes.push_back(indexes.size());
  }
  const auto result = check_folder_names(tensors, indexes);
  return result ? "" : result.error().message;
}

}  // namespace

TEST_CASE("settings: defaults") {
  const Settings s = parse({}).settings;
  CHECK(s.tag == "global_step0");
  CHECK_FALSE(s.keep_dtype);
  CHECK(s.moments == Moments::kHoles);
  CHECK_FALSE(s.hf_trainer);
}

TEST_CASE("settings: what the user may choose") {
  CHECK(parse({{"precision", "source"}}).settings.keep_dtype);
  CHECK_FALSE(parse({{"precision", "fp32"}}).settings.keep_dtype);
  CHECK(parse({{"moments", "dense"}}).settings.moments == Moments::kDense);
  CHECK(parse({{"moments", "zero-stride"}}).settings.moments == Moments::kZeroStride);
  CHECK(parse({{"moments", "none"}}).settings.moments == Moments::kNone);
}

TEST_CASE("settings: compact") {
  for (const auto& given :
       {parse({{"compact", "true"}}),
        parse({{"compact", "true"}, {"precision", "source"}, {"moments", "zero-stride"}})}) {
    CHECK(given.error.empty());
    CHECK(given.settings.keep_dtype);
    CHECK(given.settings.moments == Moments::kZeroStride);
  }
  CHECK(parse({{"compact", "true"}, {"precision", "fp32"}}).error ==
        "--compact means --precision source, found --precision fp32 beside it: leave one of the "
        "two out");
  CHECK(holds(parse({{"compact", "true"}, {"moments", "holes"}}).error, "found --moments holes"));
}

TEST_CASE("settings: the tag is one plain folder name") {
  CHECK(parse({{"tag", "pytorch_model"}}).error.empty());
  for (const std::string tag :
       {"", ".", "..", "a/b", "a\\b", "a b", "a\n", "Latest_universal", "crossdock.json"}) {
    CAPTURE(tag);
    CHECK(holds(parse({{"tag", tag}}).error, "--tag: expected the name of one folder"));
  }
  CHECK(holds(parse({{"tag", std::string(256, 'x')}}).error, "has 256 bytes, more than 255"));
}

TEST_CASE("settings: the Trainer wants global_step<digits>") {
  CHECK(parse({{"hf-trainer", "true"}}).error.empty());
  CHECK(parse({{"hf-trainer", "true"}, {"tag", "global_step12"}}).error.empty());
  for (const std::string tag : {"x", "global_step", "global_step1x"}) {
    CHECK(holds(parse({{"hf-trainer", "true"}, {"tag", tag}}).error,
                "with --hf-trainer expected global_step"));
  }
}

TEST_CASE("own names are found in any case and as a folder") {
  Settings s;
  s.tag = "global_step0";
  for (const char* name : {"latest_universal", "LATEST_universal", "crossdock.json", "Global_Step0",
                           "global_step0/a"}) {
    CHECK(is_own_name(name, s));
  }
  for (const char* name : {"config.json", "trainer_state.json", "scheduler.pt", "global_step0x"}) {
    CHECK_FALSE(is_own_name(name, s));
  }
  s.hf_trainer = true;
  CHECK(is_own_name("trainer_state.json", s));
  CHECK(is_own_name("scheduler.pt", s));
}

TEST_CASE("folder names") {
  CHECK(check_names({"model.layers.0.weight", "model.layers.1.weight", std::string(255, 'x')})
            .empty());
  CHECK(holds(check_names({"."}), "means another folder"));
  CHECK(holds(check_names({".."}), "means another folder"));
  CHECK(holds(check_names({"a/b"}), "holds '/'"));
  CHECK(holds(check_names({"a\\b"}), "holds '\\'"));
  CHECK(holds(check_names({std::string("a\0b", 3)}), "holds a NUL byte"));
  CHECK(holds(check_names({std::string(256, 'x')}), "has 256 bytes, more than 255"));
  CHECK(holds(check_names({"Optimizer_State.pt"}), "is a file of the checkpoint"));
  CHECK(check_names({"a.Weight", "a.weight"}).empty());  // the host's matter
}

TEST_CASE("folder names: an empty one") {
  std::vector<manifest::Tensor> tensors(1);
  const auto result = check_folder_names(tensors, std::vector<uint64_t>{0});
  REQUIRE_FALSE(result.has_value());
  CHECK(holds(result.error().message, "found \"\", which is empty"));
}
