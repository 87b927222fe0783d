// SPDX-License-Identifier: Apache-2.0

// Any bytes as one safetensors file, or as those of several ranks, up to values from both ends of
// every tensor. A file that begins with '{' gets the header's length in front, or a change of the
// header would never pass.
#include "plugins/reader_safetensors/checkpoint.h"
#include "tests/fuzz/cut.h"
#include <crossdock/testing/memory_host.h>

using namespace crossdock;

namespace {

std::string file_of(std::string_view text) {
  if (!text.starts_with('{')) return std::string(text);
  std::string out;
  put_le(out, uint64_t{std::min(text.rfind('}'), text.size() - 1) + 1});
  return out.append(text);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto files = fuzz::cut({reinterpret_cast<const char*>(data), size});
  test::MemoryHost host;
  host.budget = 256 << 20;
  for (size_t i = 0; i < files.size(); ++i) {
    const std::string name = files.size() == 1
                                 ? "model.safetensors"
                                 : cat("shard-0000", i + 1, "-model-00001-of-00001.safetensors");
    host.inputs[name] = file_of(files[i]);
  }
  const Host api = host.api();
  const auto checkpoint =
      reader_safetensors::open_checkpoint(api, Input(host.input()), manifest::Value(), "");
  if (!checkpoint) return 0;
  for (const auto& t : checkpoint->tensors) {
    const uint64_t bits = manifest::info(t.dtype).bits;
    if (t.boxes.empty()) {
      const auto& file = checkpoint->files[t.file];
      if (t.n_bytes > file.size || t.offset > file.size - t.n_bytes ||
          t.n_elems * bits != t.n_bytes * 8)
        __builtin_trap();
      continue;
    }
    const auto read = [&](uint32_t file, uint64_t offset, std::span<std::byte> out) {
      return checkpoint->files[file].source.read(api, offset, out);
    };
    const uint64_t n_elems = checked_product(t.shape).value();
    const uint64_t count = std::min<uint64_t>(n_elems, 700);
    std::vector<std::byte> out(count * bits / 8);
    for (const uint64_t begin : {uint64_t{0}, n_elems - count}) {
      // The boxes tile the tensor, and their bytes are inside of their files.
      if (!common::read_boxes(t.shape, t.boxes, bits / 8, begin, count, out, read))
        __builtin_trap();
    }
  }
  return 0;
}
