// SPDX-License-Identifier: Apache-2.0
#include "plugins/deepspeed/stored.h"

namespace crossdock::deepspeed {

Result<Stored> locate(const torch_read::TorchFile& torch, uint32_t file,
                      const torch_read::Tensor& tensor) {
  constexpr std::string_view kSaveAgain = ": load the file in Python and torch.save it again";
  Stored out{file, tensor.dtype, tensor.shape, 0, {}, 0, 0};
  if (out.n_elems() == 0) return out;
  XD_TRY_SET(const uint32_t i, torch.find_storage(torch.pickle().storage(tensor.storage)));
  const torch_read::Record& record = torch.record(i);
  if (record.deflated)
    return unsupported(cat("expected plain bytes, found deflated ones", kSaveAgain));
  if (torch.big_endian() && out.elem_bytes() > 1)
    return unsupported(cat("expected little-endian values, found big-endian ones", kSaveAgain));
  out.offset = record.offset;
  if (tensor.is_dense()) {
    out.offset += tensor.offset * out.elem_bytes();
  } else {
    out.strides = tensor.strides;
    out.storage_offset = tensor.offset;
    out.storage_elems = record.n_bytes / out.elem_bytes();
  }
  return out;
}

}  // namespace crossdock::deepspeed
