// SPDX-License-Identifier: Apache-2.0
#include "plugins/writer_safetensors/stream.h"

namespace crossdock::writer_safetensors {

Result<common::Overflow> write_item(const Host& host, const manifest::Manifest& model,
                                    const File& file, const Item& item, Object& out) {
  if (item.is_first) XD_TRY(out.write(0, as_bytes(head(file, model))));
  XD_TRY_SET(auto stream, common::ItemStream::make(host, model, out, file.head_bytes + item.begin,
                                                   memory_of(file, item)));
  for (const Part& part : item.parts)
    XD_TRY(stream.write(file.tensors[part.tensor], part.begin, part.count));
  XD_TRY(stream.flush());
  return stream.overflow();
}

}  // namespace crossdock::writer_safetensors
