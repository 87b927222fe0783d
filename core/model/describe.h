// SPDX-License-Identifier: Apache-2.0

// The job's module, which no file of weights describes: the order of named_parameters(), which
// names are one parameter, which tensors are buffers, what is trained, and in which group of the
// optimizer.
//
// A description is a manifest without bytes: its tensors in the order of the module's state dict,
// with roles and training, alias groups of tied names, and the optimizer's groups if it is known.
// python/crossdock_manifest makes one from the user's own model.
#pragma once

#include <crossdock/manifest_wire.hpp>

#include <string>
#include <vector>

namespace crossdock::model {

Result<manifest::Manifest> read_description(const std::string& path);

// Gives the model the description's roles, training, tied names and order. Every parameter of it
// must be in the model, of the same shape; what the model has beyond it is left out, with a note. A
// parameter that the source has under a tied name only is taken from there.
Result<void> describe(const manifest::Manifest& description, manifest::Manifest& m,
                      std::vector<std::string>& notes);

// Fills m.module alone, for a writer that has each name of a tied parameter: names of which the
// model has no values are left out.
void name_module(const manifest::Manifest& description, manifest::Manifest& m);

// The optimizer's groups, of what is trained now: the description's own, or one of all parameters
// in their order. Errors: a trained parameter in two groups, or in none.
Result<void> make_groups(const manifest::Manifest& description, manifest::Manifest& m);

}  // namespace crossdock::model
