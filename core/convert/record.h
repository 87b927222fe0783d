// SPDX-License-Identifier: Apache-2.0

// What a run notes in its journal (io/journal.h) when an item is written or a file is finished: all
// that another run needs in order to go on as if it had done it itself.
#pragma once

#include "core/io/tree_digest.h"

#include <crossdock/result.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace crossdock::convert {

// What was seen of the bytes of a digest: of a tensor's values, or of a source file's rest
// (source_proof.h).
struct Seen {
  uint64_t index = 0;  // the tensor's or the file's
  std::vector<io::TreeNode> nodes;
  std::vector<io::TreeDigest::Part> parts;
};

struct Record {
  uint64_t file = 0;                 // its number: an object of the plan, or one of its aux files
  std::optional<uint32_t> item;      // of the object; none: the file is finished
  std::string digest;                // of a finished file
  uint64_t size = 0;                 // the same, in bytes
  std::string result;                // of an item, what the writer's seal() is given
  std::vector<io::ByteRange> bytes;  // of the file, that an item has written
  std::vector<io::TreeNode> nodes;   // of the file's digest, among these bytes
  std::vector<Seen> tensors, rests;
  std::vector<std::string> notes;  // what the writer had to say meanwhile
};

std::string encode(const Record& record);
// Errors: bytes that are no record. Numbers are any: whoever uses them checks them.
Result<Record> decode_record(std::string_view bytes);

}  // namespace crossdock::convert
