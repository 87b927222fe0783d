// SPDX-License-Identifier: Apache-2.0

// Projections whose rows are written in another order than the source's (torchtitan.h): each head's
// two halves row by row in turn. A head is read whole and in order, which costs the disk no more
// than rows that stay.
#pragma once

#include "plugins/common/item_stream.h"
#include "plugins/writer_dcp/layout.h"

namespace crossdock::writer_dcp {

// The elements that elements [begin, begin + count) of an entry are made of: its own, or those of
// all heads that they touch.
xd_range source_range(const Entry& entry, uint64_t begin, uint64_t count);

// What reading a head takes. 0: the entry's rows stay.
uint64_t head_bytes(const Entry& entry);

// Writes elements [begin, begin + count) of an entry with head_rows; gives their CRC.
Result<uint32_t> write_heads(const Host& host, common::ItemStream& stream, const Entry& entry,
                             uint64_t begin, uint64_t count);

}  // namespace crossdock::writer_dcp
