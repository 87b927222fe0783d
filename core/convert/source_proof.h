// What proves a source's bytes beside the digests of its tensors, so that a report can tell any
// later change of any file that was read, down to a bit.
//
// A tensor's digest proves the bytes that it lies in where its values are those bytes: stored
// densely, and used as they are or in another order. What else a file of weights holds (headers,
// padding, codes of which values are computed, tensors with strides) is its *rest*, which has a
// digest of its own; of any other file that was read all bytes have.
#pragma once

#include "core/convert/prepare.h"
#include "core/io/tree_digest.h"
#include "core/report/report.h"

#include <string>
#include <vector>

namespace crossdock::convert {

struct SourceProof {
  std::vector<std::string> rests;          // of the manifest's source files, by index
  std::vector<report::SourceFile> beside;  // the others, by name
};

// Reads these bytes, once all else was read: only then is it known which files that took.
Result<SourceProof> prove_source(Session& session, const Prepared& prepared);

// For its test: the bytes of each source file, in order, that no tensor's digest proves.
std::vector<std::vector<io::ByteRange>> unproved_ranges(const TensorSource& model);

}  // namespace crossdock::convert
