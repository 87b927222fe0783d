// SPDX-License-Identifier: Apache-2.0

// Any bytes as a pickle, and what it says as a model.
#include "plugins/reader_bin/state_dict.h"
#include <crossdock/testing/memory_host.h>

using namespace crossdock;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto pickle = torch_read::read_pickle({reinterpret_cast<const char*>(data), size});
  if (!pickle) return pickle.error().message.empty() ? (abort(), 0) : 0;
  test::MemoryHost host;
  const Host api = host.api();
  const auto model = reader_bin::find_model(api, *pickle, "");
  if (!model) return 0;
  for (const auto& t : *model) {
    if (t.tensor->n_elems() > 0 && t.tensor->offset >= pickle->storage(t.tensor->storage).n_bytes())
      abort();
  }
  return 0;
}
