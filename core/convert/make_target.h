// SPDX-License-Identifier: Apache-2.0

// The source's model becomes the one that the job wants.
#pragma once

#include "core/convert/prepare.h"

namespace crossdock::convert {

// Gives the model the job's tensors and names, what is trained and what is left out. The job's
// module is known by its description or by the class's rule; a writer that does not need it can do
// without.
Result<void> make_target(Session& session, Prepared& prepared);

}  // namespace crossdock::convert
