// SPDX-License-Identifier: Apache-2.0

// Any bytes as a GGUF file: the header, then values from both ends of every tensor.
#include "plugins/reader_gguf/values.h"
#include <crossdock/testing/memory_host.h>

using namespace crossdock;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  test::MemoryHost host;
  host.budget = 256 << 20;
  host.named = "m.gguf";
  host.inputs["m.gguf"].assign(reinterpret_cast<const char*>(data), size);
  const Host api = host.api();
  const auto checkpoint = reader_gguf::open_checkpoint(api, Input(host.input()));
  if (!checkpoint) return 0;
  const auto floats = size % 2 == 0 ? manifest::DType::F32 : manifest::DType::F16;
  for (const auto& [file, t] : checkpoint->tensors) {
    const uint64_t count = std::min<uint64_t>(t.n_elems, 700);
    const uint64_t bytes = manifest::info(reader_gguf::value_type(*t.type, floats)).bits / 8;
    std::vector<std::byte> out(count * bytes);
    for (const uint64_t begin : {uint64_t{0}, t.n_elems - count}) {
      (void)reader_gguf::read_values(api, checkpoint->files[file].source, t, checkpoint->big_endian,
                                     floats, begin, count, out);
    }
  }
  return 0;
}
