// SPDX-License-Identifier: Apache-2.0

// The first stage: the source is opened, and its model becomes the one that the job wants. Nothing
// is written, and of values only the few are read that decide what the model is (tied embeddings,
// what config.json is made from).
#pragma once

#include "core/convert/session.h"
#include "core/convert/tensor_source.h"

#include <boost/filesystem/path.hpp>

#include <memory>
#include <vector>

namespace crossdock::convert {

struct Prepared {
  const plugin::Plugin* writer = nullptr;  // of the registry
  plugin::CheckedOptions options;          // the writer's
  boost::filesystem::path destination;
  std::unique_ptr<OpenModel> source;
  std::unique_ptr<TensorSource> tensors;  // of the source
  // The model as the writer gets it, its tensors under the source's indexes; without the source's
  // metadata, which stand beside it until the writer has them.
  manifest::Manifest target;
  std::vector<manifest::KeyValue> metadata;

  // Whether the writer wants quantised weights as they are stored.
  bool takes_codes() const { return writer->desc.caps & XD_CAP_QUANTISED; }
};

// Errors: a request that cannot be met, a source that is no model, or not the one that its
// config.json or the job's description speaks of.
Result<Prepared> prepare(Session& session);

}  // namespace crossdock::convert
