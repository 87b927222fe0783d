// SPDX-License-Identifier: Apache-2.0

// Any bytes as .metadata beside a shard of two archives: through the plugin, up to values from both
// ends of every tensor.
#include "plugins/reader_dcp/checkpoint.h"
#include "plugins/reader_dcp/recipes_for_test.h"
#include <crossdock/testing/memory_host.h>

using namespace crossdock;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::string shard = reader_dcp::recipe::shard_for_fuzzer();
  test::MemoryHost host;
  host.budget = 256 << 20;
  host.inputs[".metadata"].assign(reinterpret_cast<const char*>(data), size);
  host.inputs["__0_0.distcp"] = shard;
  const Host api = host.api();
  const auto checkpoint = reader_dcp::open_checkpoint(api, Input(host.input()), {});
  if (!checkpoint) return 0;
  const auto read = [&](uint32_t file, uint64_t offset, std::span<std::byte> out) {
    return checkpoint->files[file].source.read(api, offset, out);
  };
  for (const auto& t : checkpoint->tensors) {
    if (!t.strides.empty()) continue;
    const uint64_t count = std::min<uint64_t>(t.n_elems(), 700);
    std::vector<std::byte> out(count * t.elem_bytes());
    for (const uint64_t begin : {uint64_t{0}, t.n_elems() - count}) {
      // The boxes tile the tensor, and their archives have been found.
      if (!common::read_boxes(t.shape, t.boxes, t.elem_bytes(), begin, count, out, read)) abort();
    }
  }
  return 0;
}
