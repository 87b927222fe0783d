// bench_gguf_types SECONDS: float32 output of each GGUF type's decoder on one thread, "NAME GB/s" per line.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "plugins/reader_gguf/recipes_for_test.h"

using namespace crossdock::reader_gguf;

int main(int argc, char** argv) {
  const double seconds = argc > 1 ? std::atof(argv[1]) : 0.2;
  constexpr uint64_t kElems = 1 << 18;  // a piece as the reader decodes it: 1 MiB of output
  std::vector<float> out(kElems);
  for (uint32_t id = 0; id < 64; ++id) {
    const GgmlType* type = find_type(id);
    if (!type || !type->decode) continue;
    const uint64_t n = kElems / type->block_elems;
    const std::string blocks = recipe::some_blocks(*type, n);
    using Clock = std::chrono::steady_clock;
    double best = 1e9, all = 0;
    while (all < seconds) {
      const auto begin = Clock::now();
      type->decode(reinterpret_cast<const uint8_t*>(blocks.data()), out.data(), n);
      const double once = std::chrono::duration<double>(Clock::now() - begin).count();
      best = once < best ? once : best;
      all += once;
    }
    std::printf("%s %.3f\n", type->name, static_cast<double>(kElems) * sizeof(float) / best / 1e9);
  }
}
