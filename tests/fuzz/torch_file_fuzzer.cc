// SPDX-License-Identifier: Apache-2.0

// Any bytes as a file: through the plugin, up to the first bytes of every tensor.
#include "plugins/reader_bin/checkpoint.h"
#include <crossdock/testing/memory_host.h>

using namespace crossdock;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  test::MemoryHost host;
  host.budget = 256 << 20;
  host.named = "x.bin";
  host.inputs["x.bin"].assign(reinterpret_cast<const char*>(data), size);
  const Host api = host.api();
  const auto checkpoint =
      reader_bin::open_checkpoint(api, Input(host.input()), {}, {{}, {}, size % 2 == 1});
  if (!checkpoint) return 0;
  for (const auto& t : checkpoint->tensors) {
    torch_read::TorchFile& file = *checkpoint->files[t.file].torch;
    const auto& record = file.record(t.stored.record);
    std::vector<std::byte> out(std::min<uint64_t>(record.n_bytes, 4096));
    (void)file.reader().read(api, record, record.n_bytes - out.size(), out);
  }
  return 0;
}
