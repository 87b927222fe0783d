// SPDX-License-Identifier: Apache-2.0

// bench_dequantise SECONDS [PART]: how fast each scheme of quantised weights becomes floats on one
// thread, "NAME GB/s" of output per line: float32, and for some "NAME>bf16". PART: only names with
// it. A layer of random codes lies in memory and is evaluated in pieces, as the tensor source does.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "core/quantised/dequantise.h"

using namespace crossdock;
using manifest::DType;

namespace {

constexpr uint64_t kPieceBytes = 4 << 20, kScratchBytes = 2 << 20;
constexpr uint64_t kRows = 4096, kColumns = 4096;
using Shape = std::vector<uint64_t>;

template <class T>
std::string bytes_of(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

// A model of one weight.
class Model {
 public:
  Model& add(const char* name, DType dtype, Shape shape, std::string data) {
    manifest::Tensor t;
    t.name = name;
    t.dtype = dtype;
    t.shape = std::move(shape);
    t.role = manifest::Role::kParameter;
    m.tensors.push_back(std::move(t));
    stored.push_back(std::move(data));
    return *this;
  }
  // Any bits.
  Model& codes(const char* name, DType dtype, const Shape& shape) {
    std::mt19937_64 random(m.tensors.size());
    std::vector<uint64_t> words(size(dtype, shape) / 8 + 1);
    for (uint64_t& word : words) word = random();
    return add(name, dtype, shape, bytes_of(words).substr(0, size(dtype, shape)));
  }
  // Of a floating type: from 0.5 to 1. Of bytes: exponents of numbers near 1.
  Model& scales(const char* name, DType dtype, const Shape& shape) {
    struct Pattern {
      uint32_t set, any;  // bits
    };
    static const std::map<DType, Pattern> kPatterns{
        {DType::F32, {0x3F000000, 0x7FFFFF}}, {DType::BF16, {0x3F00, 0x7F}},
        {DType::F16, {0x3800, 0x3FF}},        {DType::F8_E4M3, {0x30, 7}},
        {DType::F8_E8M0, {0x78, 7}},          {DType::U8, {0x78, 7}}};
    codes(name, dtype, shape);
    const auto [set, any] = kPatterns.at(dtype);
    const size_t step = manifest::info(dtype).bits / 8;
    for (size_t at = 0; at < stored.back().size(); at += step) {
      uint32_t bits = 0;
      std::memcpy(&bits, &stored.back()[at], step);
      bits = set | (bits & any);
      std::memcpy(&stored.back()[at], &bits, step);
    }
    return *this;
  }
  // The group of each column, in no order.
  Model& groups(const char* name, uint64_t columns, uint64_t group) {
    std::vector<int32_t> out(columns);
    for (uint64_t i = 0; i < columns; ++i) out[i] = static_cast<int32_t>(i / group);
    std::shuffle(out.begin(), out.end(), std::mt19937_64(1));
    return add(name, DType::I32, {columns}, bytes_of(out));
  }

  Result<void> read(uint64_t tensor, uint64_t begin, uint64_t count,
                    std::span<std::byte> out) const {
    const uint64_t bits = manifest::info(m.tensors[tensor].dtype).bits;
    std::memcpy(out.data(), stored[tensor].data() + begin * bits / 8, count * bits / 8);
    return {};
  }

  manifest::Manifest m;
  std::vector<std::string> stored;

 private:
  static uint64_t size(DType dtype, const Shape& shape) {
    return *checked_product(shape) * manifest::info(dtype).bits / 8;
  }
};

// ---- the schemes, under the names that dequantise_peer.py has

Model fp8(DType codes, DType scales, uint64_t block_rows, uint64_t block_columns) {
  return Model()
      .codes("weight", codes, {kRows, kColumns})
      .scales("weight_scale_inv", scales, {kRows / block_rows, kColumns / block_columns});
}

Model whole_bytes(DType codes) {
  return Model()
      .codes("weight", codes, {kRows, kColumns})
      .scales("weight_scale", DType::BF16, {kRows, 1});
}

Model gpt_oss() {
  return Model()
      .codes("experts_blocks", DType::U8, {8, 5760, 90, 16})
      .scales("experts_scales", DType::U8, {8, 5760, 90});
}

Model nvfp4(bool is_modelopt) {
  const char* const second = is_modelopt ? "weight_scale_2" : "weight_global_scale";
  return Model()
      .codes(is_modelopt ? "weight" : "weight_packed", DType::U8, {kRows, kColumns / 2})
      .scales("weight_scale", DType::F8_E4M3, {kRows, kColumns / 16})
      .scales(second, DType::F32, is_modelopt ? Shape{} : Shape{1});
}

struct Integers {
  uint64_t bits, group;
  bool has_zeros = false, has_order = false;
};

Model packed(const Integers& of) {
  const Shape grid{kRows, kColumns / of.group};
  Model out;
  out.codes("weight_packed", DType::I32, {kRows, kColumns * of.bits / 32})
      .scales("weight_scale", DType::BF16, grid)
      .add("weight_shape", DType::I64, {2}, bytes_of(Shape{kRows, kColumns}));
  if (of.has_zeros)
    out.codes("weight_zero_point", DType::I32, {kRows * of.bits / 32, kColumns / of.group});
  if (of.has_order) out.groups("weight_g_idx", kColumns, of.group);
  return out;
}

Model gptq(const Integers& of) {
  Model out;
  out.codes("qweight", DType::I32, {kColumns * of.bits / 32, kRows})
      .codes("qzeros", DType::I32, {kColumns / of.group, kRows * of.bits / 32})
      .scales("scales", DType::F16, {kColumns / of.group, kRows});
  if (of.has_order) out.groups("g_idx", kColumns, of.group);
  out.m.source.config.kind = manifest::ValueMap();  // without which nobody knows its zeros
  return out;
}

Model awq() {
  return Model()
      .codes("qweight", DType::I32, {kColumns, kRows / 8})
      .codes("qzeros", DType::I32, {kColumns / 128, kRows / 8})
      .scales("scales", DType::F16, {kColumns / 128, kRows});
}

std::vector<float> table(size_t n) {
  std::vector<float> out;
  for (size_t i = 0; i < n; ++i)
    out.push_back(2 * static_cast<float>(i) / static_cast<float>(n - 1) - 1);
  return out;
}

Model nf4(bool is_nested, const char* dtype) {
  const uint64_t blocks = kRows * kColumns / 64;
  Model out;
  out.codes("weight", DType::U8, {kRows * kColumns / 2, 1})
      .add("weight.quant_map", DType::F32, {16}, bytes_of(table(16)));
  if (is_nested) {
    out.codes("weight.absmax", DType::U8, {blocks})
        .scales("weight.nested_absmax", DType::F32, {blocks / 256})
        .add("weight.nested_quant_map", DType::F32, {256}, bytes_of(table(256)));
  } else {
    out.scales("weight.absmax", DType::F32, {blocks});
  }
  const std::string state = cat(
      R"({"quant_type": "nf4", "blocksize": 64, "dtype": ")", dtype, R"(", "shape": [)", kRows,
      ", ", kColumns, is_nested ? R"(], "nested_blocksize": 256, "nested_offset": 1.5})" : "]}");
  return out.add("weight.quant_state.bitsandbytes__nf4", DType::U8, {state.size()}, state);
}

Model int8_by_rows() {
  return Model()
      .codes("linear.weight", DType::I8, {kRows, kColumns})
      .scales("linear.SCB", DType::F32, {kRows});
}

// ---- measuring

struct Case {
  std::string name;
  std::function<Model()> make;
  bool also_bf16 = false;
};

std::vector<Case> cases() {
  std::vector<Case> out{
      {"fp8-128x128", [] { return fp8(DType::F8_E4M3, DType::F32, 128, 128); }, true},
      {"fp8-128x128-e5m2", [] { return fp8(DType::F8_E5M2, DType::F32, 128, 128); }},
      {"fp8-128x128-e8m0", [] { return fp8(DType::F8_E4M3, DType::F8_E8M0, 128, 128); }},
      {"fp8-rows", [] { return whole_bytes(DType::F8_E4M3); }, true},
      {"mxfp8", [] { return fp8(DType::F8_E4M3, DType::U8, 1, 32); }, true},
      {"mxfp4-gpt-oss", gpt_oss, true},
      {"fp4-e8m0",
       [] {
         return Model()
             .codes("weight", DType::I8, {kRows, kColumns / 2})
             .scales("weight_scale_inv", DType::F8_E8M0, {kRows, kColumns / 32});
       }},
      {"nvfp4-ct", [] { return nvfp4(false); }, true},
      {"nvfp4-modelopt", [] { return nvfp4(true); }}};
  for (uint64_t bits = 2; bits <= 8; ++bits) {
    for (const uint64_t group : {32, 128})
      out.push_back({cat("ct-int", bits, "-", group),
                     [bits, group] {
                       return packed({bits, group});
                     },
                     bits == 4});
  }
  out.push_back({"ct-int4-128-zeros", [] { return packed({4, 128, true}); }});
  out.push_back({"ct-int4-128-order", [] { return packed({4, 128, false, true}); }});
  out.push_back({"ct-int8-rows", [] { return whole_bytes(DType::I8); }});
  out.push_back({"bnb-nf4", [] { return nf4(false, "bfloat16"); }, true});
  out.push_back({"bnb-nf4-nested", [] { return nf4(true, "bfloat16"); }, true});
  out.push_back({"bnb-nf4-fp32", [] { return nf4(false, "float32"); }});
  out.push_back({"bnb-int8", int8_by_rows});
  for (const uint64_t bits : {2, 3, 4, 8}) {
    out.push_back({cat("gptq-int", bits), [bits] { return gptq({bits, 128}); }, bits == 4});
    out.push_back({cat("gptq-int", bits, "-order"), [bits] {
                     return gptq({bits, 128, true, true});
                   }});
  }
  out.push_back({"awq", awq, true});
  return out;
}

// Of this thread: what others do counts less than on the clock of the wall.
double now() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

// The best of many runs over the whole weight.
Result<double> rate(const Model& model, DType dtype, double seconds) {
  manifest::Manifest m = model.m;
  const rules::ReadTensor read_first = [&](uint64_t tensor, uint64_t count,
                                           std::span<std::byte> out) {
    return model.read(tensor, 0, count, out);
  };
  XD_TRY_SET(const auto made, quantised::dequantise(dtype, read_first, {}, model.m.tensors, m));
  if (made.expressions.size() != 1)
    return invalid(cat("expected one weight, found ", made.expressions.size(), " tensors"));
  const transform::Expression& weight = made.expressions[0];
  const uint64_t size = manifest::info(dtype).bits / 8;
  const uint64_t n = *checked_product(weight.root().shape);
  std::vector<std::byte> out(kPieceBytes), scratch(kScratchBytes);
  double best = 1e9, all = 0;
  for (int run = 0; run < 2 || all < seconds; ++run) {
    const double begin = now();
    for (uint64_t at = 0; at < n; at += kPieceBytes / size) {
      const uint64_t count = std::min(kPieceBytes / size, n - at);
      XD_TRY(weight.evaluate(
          at, std::span(out).first(count * size), scratch,
          [&](uint64_t tensor, uint64_t from, uint64_t some, std::span<std::byte> to) {
            return model.read(tensor, from, some, to);
          }));
    }
    const double once = now() - begin;
    best = std::min(best, once);
    all += once;
  }
  return static_cast<double>(n * size) / best / 1e9;
}

}  // namespace

int main(int argc, char** argv) {
  const double seconds = argc > 1 ? std::atof(argv[1]) : 0.5;
  const std::string_view part = argc > 2 ? argv[2] : "";
  for (const Case& c : cases()) {
    if (c.name.find(part) == std::string::npos) continue;
    const Model model = c.make();
    for (const DType dtype : {DType::F32, DType::BF16}) {
      if (dtype == DType::BF16 && !c.also_bf16) continue;
      const auto gigabytes = rate(model, dtype, seconds);
      if (!gigabytes) {
        std::fprintf(stderr, "%s: %s\n", c.name.c_str(), gigabytes.error().message.c_str());
        return 1;
      }
      std::printf("%s%s %.3f\n", c.name.c_str(), dtype == DType::BF16 ? ">bf16" : "", *gigabytes);
      std::fflush(stdout);
    }
  }
}
