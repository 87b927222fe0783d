// SPDX-License-Identifier: Apache-2.0

// bench_gguf_types SECONDS: output of each GGUF type's decoder on one thread, "NAME GB/s" per line;
// and for some types what it takes to round to 16 bits, "NAME>DTYPE GB/s".
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "plugins/reader_gguf/recipes_for_test.h"
#include "plugins/reader_gguf/values.h"

using namespace crossdock;
using namespace crossdock::reader_gguf;
using manifest::DType;

namespace {

// The best of many runs over a piece as the reader decodes it: 1 MiB of float32.
double rate(const GgmlType& type, DType dtype, double seconds) {
  constexpr uint64_t kElems = 1 << 18;
  std::vector<std::byte> out(kElems * 4);
  const std::string blocks = recipe::some_blocks(type, kElems / type.block_elems);
  using Clock = std::chrono::steady_clock;
  double best = 1e9, all = 0;
  while (all < seconds) {
    const auto begin = Clock::now();
    decode(type, dtype, reinterpret_cast<const uint8_t*>(blocks.data()), 0, kElems, out.data());
    const double once = std::chrono::duration<double>(Clock::now() - begin).count();
    best = once < best ? once : best;
    all += once;
  }
  return static_cast<double>(kElems) * (dtype == DType::F32 ? 4 : 2) / best / 1e9;
}

}  // namespace

int main(int argc, char** argv) {
  const double seconds = argc > 1 ? std::atof(argv[1]) : 0.2;
  for (uint32_t id = 0; id < 64; ++id) {
    const GgmlType* type = find_type(id);
    if (!type || !type->decode) continue;
    std::printf("%s %.3f\n", type->name, rate(*type, DType::F32, seconds));
    const std::string_view name = type->name;
    for (const DType dtype : {DType::BF16, DType::F16}) {
      if ((name != "F16" && name != "BF16" && name != "Q4_K") || dtype == type->plain) continue;
      std::printf("%s>%s %.3f\n", type->name, dtype == DType::BF16 ? "bf16" : "fp16",
                  rate(*type, dtype, seconds));
    }
  }
}
