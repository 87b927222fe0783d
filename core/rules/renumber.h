// What refers to tensors by their indexes, after layout rules have made others of them.
#pragma once

#include "core/transform/expression.h"

namespace crossdock::rules {

// `m` still has the source's tensors, of which `made` makes the new ones. An alias group keeps
// those of its tensors that are there as they were. Errors: a training state or a module that
// speaks of one that is not.
Result<void> renumber(std::span<const transform::Expression> made, manifest::Manifest& m);

}  // namespace crossdock::rules
