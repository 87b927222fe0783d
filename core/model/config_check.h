// Whether a model's tensors are those that its config.json speaks of, where a rule knows the class.
#pragma once

#include <crossdock/manifest_wire.hpp>
#include <crossdock/result.hpp>

#include <boost/filesystem/path.hpp>

#include <string>
#include <vector>

namespace crossdock::model {

// By target names: the number of dimensions of each parameter, its sizes (vocab_size, hidden_size,
// ...) and the number of layers. A class without a rule, names that the rule does not know and keys
// that config.json lacks say nothing. `ignore_sizes`: only dimensions are counted, for those who
// changed the model and not its config.json.
Result<void> check_against_config(const std::vector<boost::filesystem::path>& folders,
                                  const manifest::Manifest& m, bool ignore_sizes);

}  // namespace crossdock::model
