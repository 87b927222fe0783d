// SPDX-License-Identifier: Apache-2.0

// The layers of a pipeline (DeepSpeed's PipelineModule), whose state lies in a file of each layer.
#pragma once

#include "plugins/reader_zero/files.h"
#include "plugins/reader_zero/states.h"

#include <functional>

namespace crossdock::reader_zero {

// Of an opened layer file: its tensors under the layer's own names. `warns`: of what is no tensor.
Result<std::vector<NamedTensor>> read_layer_state(const FileInput& in, bool warns);

using ReadLayer = std::function<Result<std::vector<NamedTensor>>(const LayerFile& layer)>;

// Puts each layer's tensors into the module's state of the part that has the layer, under the
// module's names: "3.weight" of layer 3, "tied_modules.KEY.weight" of one that stages share.
// Errors: a part has its module neither in its model states nor in files of layers.
Result<void> add_layers(const std::vector<LayerFile>& layers, const ReadLayer& read, SavedJob& out);

}  // namespace crossdock::reader_zero
