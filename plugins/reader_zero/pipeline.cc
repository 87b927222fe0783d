// SPDX-License-Identifier: Apache-2.0
#include "plugins/reader_zero/pipeline.h"

#include "plugins/common/quote.h"

#include <algorithm>
#include <map>
#include <set>

namespace crossdock::reader_zero {

namespace {

using Layer = std::vector<NamedTensor>;

constexpr std::string_view kTied = "tied_modules.";

// The names of one part's parameters and buffers that its model states list.
struct Listed {
  std::map<std::string_view, const std::vector<uint64_t>*> shapes;  // null of buffers

  explicit Listed(const ModelStates& model) {
    for (const auto& group : model.groups) {
      for (const NamedShape& p : group) shapes.emplace(p.name, &p.shape);
    }
    for (const std::string& name : model.buffer_names) shapes.emplace(name, nullptr);
  }

  bool has_prefix(const std::string& prefix) const {
    const auto it = shapes.lower_bound(prefix);
    return it != shapes.end() && it->first.starts_with(prefix);
  }

  // "tied_modules.KEY." of the modules that a layer may be: those that have most of its tensors.
  std::set<std::string> tied_prefixes(const Layer& layer) const {
    std::map<std::string, size_t> fits;  // tensors
    for (auto it = shapes.lower_bound(kTied); it != shapes.end(); ++it) {
      if (!it->first.starts_with(kTied)) break;
      const size_t end = it->first.find('.', kTied.size());
      if (end == std::string_view::npos) continue;
      for (const NamedTensor& t : layer) {
        const bool fits_shape = !it->second || *it->second == t.value.shape;
        fits[std::string(it->first.substr(0, end + 1))] +=
            fits_shape && it->first.substr(end + 1) == t.name;
      }
    }
    std::set<std::string> out;
    size_t most = 1;
    for (const auto& [prefix, n] : fits) {
      if (n > most) out.clear();
      if (n >= most) out.insert(prefix);
      most = std::max(most, n);
    }
    return out;
  }
};

// Where a layer belongs: the parts, and what its names begin with.
struct Place {
  std::vector<size_t> parts;
  std::string prefix;
};

class Places {
 public:
  explicit Places(const SavedJob& job) : tensor_ranks_(job.tensor_ranks) {
    for (const States& part : job.parts) listed_.emplace_back(part.model);
  }

  // Layers come in their order: one whose parameters are in no list, since none trains, belongs to
  // the stage of those before it.
  Place of(const LayerFile& file, const Layer& layer) {
    const std::string own = cat(file.layer, '.');
    for (size_t p = file.tensor_rank; p < listed_.size(); p += tensor_ranks_) {
      if (!listed_[p].has_prefix(own)) continue;
      last_ = p / tensor_ranks_;
      return {{p}, own};
    }
    Place tied;
    for (size_t p = file.tensor_rank; p < listed_.size(); p += tensor_ranks_) {
      const auto prefixes = listed_[p].tied_prefixes(layer);
      // Nothing tells which of several it is. Its weights that train are in the optimizer's states.
      if (prefixes.size() > 1) return {};
      if (prefixes.empty() || (!tied.parts.empty() && tied.prefix != *prefixes.begin())) continue;
      tied.parts.push_back(p);
      tied.prefix = *prefixes.begin();
    }
    if (!tied.parts.empty()) return tied;
    return {{last_ * tensor_ranks_ + file.tensor_rank}, own};
  }

 private:
  size_t tensor_ranks_, last_ = 0;  // the stage
  std::vector<Listed> listed_;
};

}  // namespace

Result<Layer> read_layer_state(const FileInput& in, bool warns) {
  const Pickle& pickle = in.torch.pickle();
  XD_TRY_SET(const Dict dict, Dict::of(pickle, pickle.root(), ""));
  return read_module(in.host, dict, in.torch, in.file, warns);
}

Result<void> add_layers(const std::vector<LayerFile>& layers, const ReadLayer& read,
                        SavedJob& out) {
  const auto lacks_module = [](const States& part) { return !part.model.has_module; };
  if (std::none_of(out.parts.begin(), out.parts.end(), lacks_module)) return {};
  if (layers.empty())
    return Error{XD_NOT_FOUND,
                 "expected the module's state in the model states, or of a pipeline in files "
                 "layer_00-model_states.pt, found neither: copy the whole folder"};
  Places places(out);
  std::vector<std::set<std::string>> known(out.parts.size());
  std::vector<Layer> tied(out.parts.size()), own(out.parts.size());
  for (const LayerFile& file : layers) {
    if (file.tensor_rank >= out.tensor_ranks)
      return corrupt(cat("expected layers of ", out.tensor_ranks, " tensor-parallel ranks, found ",
                         file.name));
    XD_TRY_SET(Layer layer, read(file));
    const Place place = places.of(file, layer);
    for (NamedTensor& t : layer) {
      t.name = place.prefix + t.name;
      for (const size_t p : place.parts) {
        // A tied module may be several layers.
        if (known[p].insert(t.name).second)
          (place.prefix.starts_with(kTied) ? tied : own)[p].push_back(t);
      }
    }
  }
  for (size_t p = 0; p < out.parts.size(); ++p) {
    Layer& module = out.parts[p].model.module;
    module = std::move(tied[p]);
    module.insert(module.end(), std::make_move_iterator(own[p].begin()),
                  std::make_move_iterator(own[p].end()));
  }
  return {};
}

}  // namespace crossdock::reader_zero
