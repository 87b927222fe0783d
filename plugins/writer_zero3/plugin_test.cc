// SPDX-License-Identifier: Apache-2.0
#include "plugins/torch/write/unzip_for_test.h"
#include "plugins/writer_zero3/layout.h"
#include "tests/support/plugin_checks.h"

using namespace crossdock;
using namespace crossdock::writer_zero3;
using manifest::DType;
using manifest::Manifest;

namespace {

// Tensors t0, t1, ... with so many elements, all trained in one group.
Manifest model_of(std::vector<uint64_t> sizes) {
  Manifest m;
  m.training.groups.emplace_back();
  for (uint64_t i = 0; i < sizes.size(); ++i) {
    auto& t = m.tensors.emplace_back();
    t.name = cat("t", i);
    t.dtype = DType::BF16;
    t.shape = {sizes[i]};
    t.role = manifest::Role::kParameter;
    m.module.push_back({t.name, i});
    m.training.groups[0].tensors.push_back(i);
  }
  return m;
}

Settings ranks(uint64_t world_size, uint64_t sub_group_size = 1'000'000'000) {
  Settings s;
  s.world_size = world_size;
  s.sub_group_size = sub_group_size;
  return s;
}

std::string cut(const Manifest& m, const Settings& s) {
  const auto layout = make_layout(m, s);
  if (!layout) return layout.error().message;
  std::string out;
  for (const SubGroup& sub : layout->sub_groups) {
    out += cat(out.empty() ? "" : " ", sub.group, ":");
    for (const uint64_t i : sub.parameters) out += cat(i, ",");
    out += cat("=", sub.n_elems);
  }
  return out;
}

const test::OptionValues kGiven{{"world-size", "3"},
                                {"dtype", "bf16"},
                                {"tag", "s"},
                                {"sub-group-size", "1000000000"},
                                {"optimizer", "adamw"},
                                {"lr", "0.001"},
                                {"betas", "0.9,0.999"},
                                {"eps", "1e-8"},
                                {"weight-decay", "0.01"},
                                {"moments", "holes"},
                                {"loss-scale-power", "16"},
                                {"loss-scale-window", "1000"},
                                {"hysteresis", "2"}};

}  // namespace

TEST_CASE("zero3: sub-groups close when they are full") {
  CHECK(cut(model_of({10, 10, 10}), ranks(1)) == "0:0,1,2,=30");
  CHECK(cut(model_of({10, 10, 10}), ranks(1, 30)) == "0:0,1,2,=30");
  CHECK(cut(model_of({10, 10, 10}), ranks(1, 29)) ==
        "0:0,1,2,=30");  // reached only by the last one
  CHECK(cut(model_of({10, 10, 10}), ranks(1, 20)) == "0:0,1,=20 0:2,=10");
  CHECK(cut(model_of({10, 10, 10}), ranks(1, 1)) == "0:0,=10 0:1,=10 0:2,=10");
  CHECK(cut(model_of({10, 10, 10}), ranks(3, 8)) == "0:0,1,=8 0:2,=4");  // of one rank, padded
  Manifest two = model_of({5, 6, 7});
  two.training.groups = {{{2}, {}}, {{}, {}}, {{0, 1}, {}}};
  CHECK(cut(two, ranks(1)) == "0:2,=7 2:0,1,=11");
}

TEST_CASE("zero3: pieces of a rank") {
  const Manifest m = model_of({10, 2, 0});
  const auto text = [&](uint64_t index, uint64_t rank) {
    const auto s = piece(m, index, rank, 4, DType::F32);
    return cat(s.begin, "+", s.count, " pad ", s.pad);
  };
  CHECK(text(0, 0) == "0+3 pad 0");
  CHECK(text(0, 3) == "9+1 pad 2");
  CHECK(text(1, 0) == "0+1 pad 0");
  CHECK(text(1, 3) == "2+0 pad 1");
  CHECK(text(2, 0) == "0+0 pad 0");
}

TEST_CASE("zero3: what it refuses") {
  Manifest none = model_of({4});
  none.module.clear();
  CHECK(cut(none, ranks(1)) == "expected a manifest that describes the job's module, found none");
  Manifest frozen = model_of({4});
  frozen.tensors[0].train = manifest::Training::kFrozen;
  frozen.training.groups[0].tensors.clear();
  CHECK(cut(frozen, ranks(1))
            .find("expected at least one parameter to train, found none (1 frozen") == 0);
  Manifest integers = model_of({4});
  integers.tensors[0].dtype = DType::I32;
  CHECK(cut(integers, ranks(1)).find("expected a floating-point type, found I32") !=
        std::string::npos);
}

TEST_CASE("zero3: the files of three ranks, and every failing call of the host") {
  Manifest m = model_of({7, 4000});
  const auto run = [&](test::MemoryHost& host) {
    host.tensor_bytes = [](uint64_t tensor, uint64_t first, std::span<std::byte> out) {
      for (size_t i = 0; i < out.size(); ++i)
        out[i] = static_cast<std::byte>((first + i) * 7 + tensor);
    };
    return test::run_writer(host, test::linked_plugin(host), m, kGiven);
  };
  test::MemoryHost good;
  const auto files = run(good);
  REQUIRE(files);
  CHECK(files->size() == 7);
  CHECK(files->at("latest") == "s");
  for (int rank = 0; rank < 3; ++rank) {
    const auto records = torch_write::read_zip(
        files->at(cat("s/bf16_zero_pp_rank_", rank, "_mp_rank_00_optim_states.pt")));
    const auto flat = std::find_if(records.begin(), records.end(),
                                   [](const auto& r) { return r.name.ends_with("/data/0"); });
    REQUIRE(flat != records.end());
    CHECK(flat->data.size() == 4 * (3 + 1334));
  }
  test::check_every_fault(run);
}

TEST_CASE(
    "zero3: values beyond fp16 are refused when a file is sealed, whichever thread saw them") {
  const Manifest m = model_of({7, 4000});
  test::OptionValues given = kGiven;
  for (auto& [key, value] : given) {
    if (key == "dtype") value = "fp16";
  }
  for (const uint16_t bits : {uint16_t{0x3f80}, uint16_t{0x4780}}) {  // 1 and 65536 in bf16
    test::MemoryHost host;
    host.threads = 3;
    host.tensor_bytes = [&](uint64_t tensor, uint64_t first, std::span<std::byte> out) {
      for (size_t i = 0; i < out.size(); i += 2) {
        const uint16_t value = tensor == 1 && (first + i) / 2 < 5 ? bits : 0;
        std::memcpy(&out[i], &value, 2);
      }
    };
    const auto files = test::run_writer(host, test::linked_plugin(host), m, given);
    if (bits == 0x3f80) {
      CHECK(files);
      continue;
    }
    REQUIRE_FALSE(files);
    CHECK(files.error().code == XD_UNSUPPORTED_DATA);
    CHECK(files.error().message.find("found 5 beyond") != std::string::npos);
  }
}
