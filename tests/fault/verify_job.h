// SPDX-License-Identifier: Apache-2.0

// Small folders of every writer with the real plugins, and the checks of them as the command makes
// them.
#pragma once

#include "core/convert/convert.h"
#include "core/verify/folder.h"
#include "tests/fault/real_plugins.h"
#include "tests/fault/safetensors_file.h"
#include "tests/unit/core_test_support.h"

namespace crossdock::test {

// Bytes that are small numbers in any float type, and no two alike near each other.
inline std::string numbers(size_t n, uint8_t seed) {
  std::string out;
  for (size_t i = 0; i < n; ++i)
    out += static_cast<char>(i % 2 ? 0x3C : static_cast<uint8_t>(seed + 37 * i));
  return out;
}

// Two shards of every kind of tensor, and files beside them; the job's module is described.
inline void make_checked_source(const TempDir& dir) {
  const fs::path src = dir / "src";
  const std::vector<Stored> first{{"model.embed.weight", "BF16", "[64,40]", numbers(5120, 1)},
                                  {"model.norm.weight", "F32", "[5]", numbers(20, 2)}};
  const std::vector<Stored> second{{"model.out.weight", "F16", "[3,4]", numbers(24, 3)},
                                   {"steps", "I64", "[1]", "12345678"}};
  put(src / "model-00001-of-00002.safetensors", safetensors(first, 5));
  put(src / "model-00002-of-00002.safetensors", safetensors(second));
  put(src / "model.safetensors.index.json",
      R"({"metadata":{"total_size":5172},"weight_map":{"model.embed.weight":"model-00001-of-00002.safetensors",)"
      R"("model.norm.weight":"model-00001-of-00002.safetensors","model.out.weight":"model-00002-of-00002.safetensors",)"
      R"("steps":"model-00002-of-00002.safetensors"}})");
  put(src / "config.json",
      R"({"model_type":"toy","dtype":"bfloat16","tie_word_embeddings":false})");
  put(src / "tokenizer.json", R"({"version": "1.0"})");
  manifest::Manifest module;
  const auto add = [&](const char* name, manifest::DType dtype, std::vector<uint64_t> shape,
                       manifest::Role role) {
    manifest::Tensor& t = module.tensors.emplace_back();
    t.name = name;
    t.dtype = dtype;
    t.shape = std::move(shape);
    t.role = role;
    if (role == manifest::Role::kParameter) t.train = manifest::Training::kTrainable;
  };
  using manifest::DType, manifest::Role;
  add("model.embed.weight", DType::BF16, {64, 40}, Role::kParameter);
  add("model.norm.weight", DType::F32, {5}, Role::kParameter);
  add("model.out.weight", DType::F16, {3, 4}, Role::kParameter);
  add("steps", DType::I64, {1}, Role::kBuffer);
  put(dir / "target.pb", manifest::encode(module));
}

struct CheckedFormat {
  const char* to;
  plugin::GivenOptions options;
};
inline const std::vector<CheckedFormat>& checked_formats() {
  static const std::vector<CheckedFormat> all{
      {"safetensors", {{"shard-size", {"6000"}}, {"dtype", {"fp32"}}}},
      {"universal", {}},
      {"zero3", {{"world-size", {"2"}}, {"lr", {"0.001"}}, {"weight-decay", {"0"}}}},
      {"dcp", {{"dcp-shards", {"2"}}}}};
  return all;
}

// A folder that was converted, and what says of it whether it is as it was.
class CheckedJob {
 public:
  explicit CheckedJob(const CheckedFormat& format) {
    make_checked_source(dir_);
    request_.source = (dir_ / "src").string();
    request_.destination = out().string();
    request_.to = format.to;
    request_.target.description = (dir_ / "target.pb").string();
    request_.writer_options = format.options;
    request_.memory = 64 << 20;
    request_.sync = false;
    const auto outcome =
        convert::convert(request_, registry(), io::Os::real(), cancelled, convert::Callbacks{});
    INFO((outcome ? "" : outcome.error().message));
    REQUIRE(outcome);
  }

  fs::path src() const { return dir_ / "src"; }
  fs::path out() const { return dir_ / "out"; }

  Result<verify::Verdict> alone(io::Os& os = io::Os::real(),
                                verify::Depth depth = verify::Depth::kFull) {
    base::Memory memory(request_.memory);
    XD_TRY_SET(const auto report, verify::read_report(os, out()));
    return verify::verify_folder({os, memory, threads, cancelled, {}}, registry(), {}, out(),
                                 report, depth);
  }

  Result<verify::Verdict> against(io::Os& os = io::Os::real(),
                                  verify::Depth depth = verify::Depth::kFull) {
    return with_source(os, [&](const verify::Reading& reading, const verify::Made& made) {
      return verify::verify_against(reading, made, out(), depth);
    });
  }
  // As convert --verify does of a folder that is not published yet.
  Result<void> written() {
    const auto checked = with_source(
        io::Os::real(),
        [&](const verify::Reading& reading, const verify::Made& made) -> Result<verify::Verdict> {
          XD_TRY(verify::check_written(reading, made, out()));
          return verify::Verdict{};
        });
    return checked ? Result<void>() : Result<void>(checked.error());
  }

  std::atomic<bool> cancelled{false};
  unsigned threads = 1;

 private:
  Result<verify::Verdict> with_source(
      io::Os& os,
      const std::function<Result<verify::Verdict>(const verify::Reading&, const verify::Made&)>&
          check) {
    XD_TRY_SET(const auto report, verify::read_report(os, out()));
    request_.threads = threads;
    convert::Session session(request_, registry(), os, cancelled);
    XD_TRY_SET(convert::Prepared prepared, convert::prepare(session));
    XD_TRY_SET(const convert::Planned planned, convert::make_plan(session, prepared));
    return check({os, session.memory, threads, cancelled, {}},
                 {session, prepared, planned, report});
  }

  const TempDir dir_;
  convert::Request request_;
};

// Sound: nothing failed, and nothing was found.
inline bool is_sound(const Result<verify::Verdict>& verdict) {
  return verdict && verdict->is_good();
}

// What a check says against it, all in one.
inline std::string told(const Result<verify::Verdict>& verdict) {
  if (!verdict) return verdict.error().message;
  std::string out;
  for (const std::string& problem : verdict->problems) out += problem + "\n";
  return out;
}

}  // namespace crossdock::test
