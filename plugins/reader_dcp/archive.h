// SPDX-License-Identifier: Apache-2.0

// One archive of a shard: a file of torch.save inside a file.
#pragma once

#include <crossdock/plugin.hpp>

#include "plugins/reader_dcp/checkpoint.h"
#include "plugins/reader_dcp/metadata.h"

namespace crossdock::reader_dcp {

// Where the values of a chunk lie, which must be of the type and sizes that .metadata promises.
// Strides are filled where they are not row-major.
struct Values {
  uint64_t data = 0;  // in the file
  std::vector<uint64_t> strides;
  uint64_t storage_offset = 0, storage_elements = 0;
};
Result<Values> find_values(const Host& host, const CheckpointFile& file, const Place& place,
                           manifest::DType dtype, const std::vector<uint64_t>& sizes,
                           bool verify_crc);

// A Python object of plain values, as a value of a manifest; unset when it is of anything else.
Result<manifest::Value> read_object(const Host& host, const CheckpointFile& file,
                                    const Place& place);

}  // namespace crossdock::reader_dcp
