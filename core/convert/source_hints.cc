// SPDX-License-Identifier: Apache-2.0
#include "core/convert/source_hints.h"

#include "core/base/text.h"
#include "core/io/small_file.h"

#include <fnmatch.h>
#include <simdjson.h>

#include <crossdock/part_name.hpp>

#include <algorithm>
#include <unordered_set>

namespace crossdock::convert {

namespace {

constexpr uint64_t kMaxConfigBytes = 64 << 20;

struct Foreign {
  const char* pattern;  // of a file's name without its folder
  const char* what;
};
// The first that matches any file counts.
constexpr Foreign kForeign[] = {
    {"*.distcp",
     "a distributed checkpoint of torch in a folder inside: name the folder that holds .metadata"},
    {"model_optim_rng.pt",
     "a checkpoint of Megatron-LM: export it to Hugging Face's format with Megatron's own tools"},
    {"optimizer_state.pt",
     "a DeepSpeed Universal checkpoint further below or around it: name the folder that holds its "
     "file `latest_universal`, or the one that its folder zero lies in"},
    {"*zero_pp_rank_*_optim_states.pt",
     "a DeepSpeed checkpoint further below: name the folder that holds its file `latest`, or the "
     "one that these files lie in"},
    {"zero_pp_rank_*_model_states.pt",
     "a DeepSpeed checkpoint without the optimizer states, which hold the weights: copy the files "
     "of all ranks"},
    {"mp_rank_*_model_states.pt",
     "a DeepSpeed checkpoint without ZeRO: name the file mp_rank_00_model_states.pt if it is the "
     "only one, else put the parts together with the program that saved them"},
    {"*_world_size_[0-9]*_rank_[0-9]*.pt",
     "one file for each rank of a sharded job: merge them with the program that saved them, as "
     "with verl's "
     "model_merger"},
    {"consolidated.[0-9]*.pth",
     "a model in Meta's own format, in model-parallel parts: convert it with transformers' "
     "convert_llama_weights_to_hf.py"},
    {"hf_model_[0-9]*_[0-9]*.pt",
     "a model in several files that torchtune saved without an index: load all of them in Python "
     "and save them "
     "together"},
    {"tf_model*.h5",
     "weights for TensorFlow: load them in transformers 4 with from_tf=True and save them"},
    {"*.ckpt*.index",
     "weights for TensorFlow: load them in transformers 4 with from_tf=True and save them"},
    {"flax_model*.msgpack",
     "weights for Flax: load them in transformers 4 with from_flax=True and save them"},
    {"*.nemo", "an archive of NeMo: export it to Hugging Face's format with NeMo"},
    {"*.onnx", "an ONNX graph: convert from the model that it was exported from"},
    {"*.pdparams", "weights for PaddlePaddle"},
    {"*.engine", "an engine of TensorRT: convert from the model that it was built from"},
};

std::string_view base_name(const std::string& name) {
  const size_t slash = name.rfind('/');
  return std::string_view(name).substr(slash == std::string::npos ? 0 : slash + 1);
}

bool matches(std::string_view name, const std::vector<std::string>& patterns) {
  return std::any_of(patterns.begin(), patterns.end(), [&](const std::string& pattern) {
    return ::fnmatch(pattern.c_str(), std::string(name).c_str(), 0) == 0;
  });
}

// A file of weights in the folder itself, not an index of them.
bool is_weights(const std::string& name, const std::vector<std::string>& patterns) {
  return name.find('/') == std::string::npos && !name.ends_with(".json") && matches(name, patterns);
}

}  // namespace

std::string foreign_checkpoint(const io::Input& input) {
  for (const Foreign& foreign : kForeign) {
    const std::vector<std::string> pattern{foreign.pattern};
    for (const io::InputEntry& entry : input.entries()) {
      if (matches(base_name(entry.name), pattern))
        return cat(foreign.what, " (", base::printable(entry.name), ")");
    }
  }
  return {};
}

std::string unread_weights(const io::Input& input, const manifest::Manifest& m,
                           const std::vector<std::string>& patterns) {
  std::unordered_set<std::string_view> read;
  for (const manifest::File& file : m.source.files) read.insert(file.name);
  std::vector<std::string> names;
  for (const io::InputEntry& entry : input.entries()) {
    if (!read.contains(entry.name) && is_weights(entry.name, patterns)) names.push_back(entry.name);
  }
  return names.empty() ? "" : cat("Beside the model, not read: ", base::listed(names), ".");
}

std::string missing_downloads(const io::Input& input, const std::vector<std::string>& patterns) {
  const auto is_index = [&](const io::InputEntry& entry) {
    return is_index_name(entry.name) && matches(entry.name, patterns);
  };
  const bool has_index = std::any_of(input.entries().begin(), input.entries().end(), is_index);
  if (!input.commit_files()) return {};
  // Where there are numbered parts, they are what the reader looks for.
  std::vector<std::string> all, parts;
  for (const auto& [name, file] : *input.commit_files()) {
    if (!is_weights(name, patterns)) continue;
    all.push_back(name);
    if (part_name(name)) parts.push_back(name);
  }
  const auto& wanted = parts.empty() ? all : parts;
  std::vector<std::string> missing;
  std::copy_if(wanted.begin(), wanted.end(), std::back_inserter(missing),
               [&](const std::string& name) { return !input.find(name); });
  if (missing.empty() && wanted.empty()) return {};
  if (missing.empty())
    return has_index
               ? cat("all ", wanted.size(),
                     " weight files of this commit are there, so its index is of another save")
               : "";
  const auto snapshot = io::snapshot_around(input.root());
  return cat(missing.size(), " of ", wanted.size(),
             " weight files of this commit are not downloaded (", base::listed(missing),
             "): run `hf download ", snapshot ? snapshot->hub_name() : "ORG/NAME", "`");
}

std::string broken_links(const io::Input& input) {
  if (input.broken_links().empty()) return {};
  return cat("links that lead nowhere, as in a copy of a cache without its blobs: ",
             base::listed(input.broken_links()));
}

std::string quantisation_beside(const io::Input& input) {
  if (input.named().empty()) return {};
  if (input.find("quantize_config.json")) return "quantize_config.json";  // of AutoGPTQ
  const io::InputEntry* entry = input.find("config.json");
  const auto text = entry ? io::read_small_file(entry->path.string(), kMaxConfigBytes)
                          : Result<std::string>(Error{XD_NOT_FOUND, ""});
  simdjson::dom::parser parser;
  simdjson::dom::element root, found;
  if (!text || parser.parse(*text).get(root)) return {};
  const bool has = (!root["quantization_config"].get(found) && !found.is_null()) ||
                   (!root["text_config"]["quantization_config"].get(found) && !found.is_null());
  return has ? "config.json" : "";
}

bool has_broken_weights(const io::Input& input, const std::vector<std::string>& patterns) {
  const auto& links = input.broken_links();
  return std::any_of(links.begin(), links.end(), [&](const std::string& name) {
    return is_weights(name, patterns) || (is_index_name(name) && matches(name, patterns));
  });
}

}  // namespace crossdock::convert
