// SPDX-License-Identifier: Apache-2.0
#include "plugins/deepspeed/model_states.h"

#include "plugins/common/file_names.h"
#include "plugins/common/quote.h"

#include <algorithm>

namespace crossdock::deepspeed {

namespace {

using common::in_quotes;
using torch_read::TorchFile;

constexpr size_t kMaxDimensions = torch_read::kMaxDimensions;

// The keys that DeepSpeed 0.14 to 0.19.8 writes itself; all others are the job's client_state.
constexpr std::string_view kOwnKeys[] = {"module",
                                         "buffer_names",
                                         "optimizer",
                                         "param_shapes",
                                         "frozen_param_shapes",
                                         "shared_params",
                                         "frozen_param_fragments",
                                         "lr_scheduler",
                                         "data_sampler",
                                         "random_ltd",
                                         "sparse_tensor_module_names",
                                         "skipped_steps",
                                         "global_steps",
                                         "global_samples",
                                         "dp_world_size",
                                         "mp_world_size",
                                         "checkpoint_parallel_dimensions",
                                         "num_experts",
                                         "ds_autoep_layers",
                                         "autoep_layers",
                                         "universal_checkpoint_info",
                                         "ds_config",
                                         "ds_version"};

Result<Dict> root_of(const TorchFile& torch, Layout layout) {
  const bool is_universal = layout == Layout::kUniversal;
  auto root = Dict::of(torch.pickle(), torch.pickle().root(), "");
  // A pipeline has the module elsewhere, and there is None; what names are of is in param_shapes.
  const char *first = is_universal ? "param_shapes" : "module",
             *second = is_universal ? "dp_world_size" : "buffer_names";
  const bool has_first = root && (root->find(first) || root->find("param_shapes"));
  if (!has_first || !root->find(second))
    return unsupported(cat("expected DeepSpeed's model states (a dict with ", first, " and ",
                           second, "), found another object: the file is of another program"));
  return root;
}

Result<std::string> name_of(const Dict& dict, const Value& key) {
  if (key.kind == Kind::kText) return std::string(dict.pickle().text(key));
  return corrupt(
      cat(dict.place(), ": expected names, found ", torch_read::name_of(key.kind), " as a key"));
}

// {name: torch.Size}
Result<std::vector<NamedShape>> shapes_of(const Dict& dict) {
  std::vector<NamedShape> out;
  const auto items = dict.items();
  for (size_t i = 0; i + 1 < items.size(); i += 2) {
    NamedShape one;
    XD_TRY_SET(one.name, name_of(dict, items[i]));
    const auto sizes = sequence(dict.pickle(), items[i + 1]);
    bool fits = items[i + 1].kind == Kind::kTuple && sizes.size() <= kMaxDimensions;
    for (const Value& size : sizes) {
      fits = fits && size.kind == Kind::kInt && static_cast<int64_t>(size.data) >= 0;
      if (fits) one.shape.push_back(size.data);
    }
    const auto n_elems = checked_product(one.shape);
    if (!fits || !n_elems)
      return corrupt(cat(dict.place(), ": expected the shape of ", in_quotes(one.name),
                         ", found other values"));
    one.n_elems = *n_elems;
    out.push_back(std::move(one));
  }
  return out;
}

enum class NoTensors { kWarn, kLeaveOut, kRefuse };

// {name: tensor}. Those that stand for a tensor are refused.
Result<std::vector<NamedTensor>> tensors_of(const Host* host, const Dict& dict,
                                            const TorchFile& torch, uint32_t file,
                                            NoTensors no_tensors) {
  std::vector<NamedTensor> out;
  std::vector<std::string> left_out;
  const auto items = dict.items();
  for (size_t i = 0; i + 1 < items.size(); i += 2) {
    XD_TRY_SET(std::string name, name_of(dict, items[i]));
    const Value& value = items[i + 1];
    if (value.kind != Kind::kTensor) {
      const bool stands_for_tensor = value.kind == Kind::kOpaque && value.length != 0;
      if (stands_for_tensor || no_tensors == NoTensors::kRefuse)
        return unsupported(cat(dict.place(), ": expected a plain tensor at ", in_quotes(name),
                               ", found ",
                               stands_for_tensor ? dict.pickle().class_of(value)
                                                 : std::string(torch_read::name_of(value.kind))));
      left_out.push_back(in_quotes(name));
      continue;
    }
    auto stored = locate(torch, file, dict.pickle().tensor(value));
    if (!stored)
      return std::move(stored).error().in(cat(dict.place(), ", tensor ", in_quotes(name)));
    out.push_back({std::move(name), std::move(*stored)});
  }
  if (!left_out.empty() && no_tensors == NoTensors::kWarn)
    host->log(XD_LOG_WARN, cat(left_out.size(),
                               " entries of the module's state are no tensors "
                               "and are left out: ",
                               common::listed(left_out)));
  return out;
}

// Models whose parameters are not all in these files.
Result<void> refuse_parts(const Dict& root) {
  const auto has = [&](std::string_view key) {
    const Value* v = root.find(key);
    return v && !sequence(root.pickle(), *v).empty();
  };
  if (has("ds_autoep_layers") || has("autoep_layers"))
    return unsupported(
        "expected a model whose experts lie with the rest, found one of AutoEP, whose ranks have "
        "experts of their own: make a universal checkpoint of it with DeepSpeed's "
        "ds_to_universal.py");
  return {};
}

Result<void> add_dimensions(const Dict& root, ModelStates& out) {
  constexpr std::string_view kKey = "checkpoint_parallel_dimensions";
  if (!root.find(kKey)) return {};
  XD_TRY_SET(const Dict dict, root.dict(kKey));
  XD_TRY_SET(out.pipeline_stages, dict.natural("pp_degree"));
  XD_TRY_SET(out.tensor_ranks, dict.natural("tp_degree"));
  return {};
}

Result<std::vector<std::string>> texts_of(const Dict& root, std::string_view key) {
  std::vector<std::string> out;
  XD_TRY_SET(const auto list, root.list(key));
  for (const Value& v : list) {
    if (v.kind != Kind::kText)
      return corrupt(cat(key, ": expected names, found ", torch_read::name_of(v.kind)));
    out.emplace_back(root.pickle().text(v));
  }
  return out;
}

Result<std::vector<std::pair<std::string, std::string>>> tied_of(const Dict& root) {
  std::vector<std::pair<std::string, std::string>> out;
  if (!root.find("shared_params")) return out;
  XD_TRY_SET(const Dict dict, root.dict("shared_params"));
  const auto items = dict.items();
  for (size_t i = 0; i + 1 < items.size(); i += 2) {
    XD_TRY_SET(std::string other, name_of(dict, items[i]));
    XD_TRY_SET(std::string kept, name_of(dict, items[i + 1]));
    out.emplace_back(std::move(other), std::move(kept));
  }
  return out;
}

Result<std::vector<std::vector<NamedShape>>> groups_of(const Dict& root) {
  std::vector<std::vector<NamedShape>> out;
  XD_TRY_SET(const auto list, root.list("param_shapes"));
  for (const Value& v : list) {
    XD_TRY_SET(const Dict dict, Dict::of(root.pickle(), v, "param_shapes"));
    XD_TRY_SET(out.emplace_back(), shapes_of(dict));
  }
  return out;
}

// Of the job's own weights. DeepSpeed takes "bfloat16" for "bf16" too (0.19.8, runtime/config.py);
// where neither is on they are fp32. A config that was given as a file's path tells nothing, nor
// does an empty one, as of a checkpoint that no job has saved.
manifest::DType dtype_of(const Dict& root) {
  const Value* config = root.find("ds_config");
  if (!config || config->kind != Kind::kDict || root.pickle().items(*config).empty())
    return manifest::DType::UNSPECIFIED;
  const auto is_on = [&](const char* key) {
    const Value* part = root.pickle().find(*config, key);
    if (!part || part->kind != Kind::kDict) return false;
    const Value* enabled = root.pickle().find(*part, "enabled");
    return enabled && enabled->kind == Kind::kBool && enabled->data != 0;
  };
  if (is_on("bf16") || is_on("bfloat16")) return manifest::DType::BF16;
  return is_on("fp16") ? manifest::DType::F16 : manifest::DType::F32;
}

void add_counters(const Dict& root, PlainData& plain, std::vector<manifest::KeyValue>& out) {
  for (const char* key : {"mp_world_size", "global_steps", "global_samples", "skipped_steps",
                          "ds_version", "lr_scheduler"}) {
    const Value* v = root.find(key);
    auto value = v ? plain.of(*v, key) : std::nullopt;
    if (value) out.push_back({key, std::move(*value)});
  }
}

// What the folder was made by: patterns of parameters that were cut in some way. They are kept as
// they are, for the folder's tensors are whole.
Result<void> add_universal_info(const Dict& root, PlainData& plain, ModelStates& out) {
  constexpr const char* kKey = "universal_checkpoint_info";
  const Value* v = root.find(kKey);
  if (!v || v->kind != Kind::kDict) return {};
  XD_TRY_SET(const Dict dict, Dict::of(root.pickle(), *v, kKey));
  XD_TRY_SET(out.original_vocab_size, dict.natural("original_vocab_size"));
  out.metadata.push_back({kKey, {plain.map(*v, kKey, {})}});
  return {};
}

Result<RankStates> rank_states(const Dict& root, const TorchFile& torch, uint32_t file) {
  RankStates out;
  XD_TRY_SET(out.global_steps, root.natural("global_steps"));
  XD_TRY_SET(out.dp_world_size, root.natural("dp_world_size"));
  if (!root.find("frozen_param_fragments")) return out;
  XD_TRY_SET(const Dict dict, root.dict("frozen_param_fragments"));
  XD_TRY_SET(auto fragments, tensors_of(nullptr, dict, torch, file, NoTensors::kRefuse));
  for (NamedTensor& t : fragments)
    out.frozen_fragments.insert_or_assign(std::move(t.name), std::move(t.value));
  return out;
}

}  // namespace

void ModelStates::set_dtype(manifest::DType type) {
  dtype = type;
  const char* const name = type == manifest::DType::BF16  ? "bf16"
                           : type == manifest::DType::F16 ? "fp16"
                                                          : "fp32";
  metadata.push_back({"dtype", {std::string(name)}});
}

Result<std::vector<NamedTensor>> read_module(const Host& host, const Dict& dict,
                                             const TorchFile& torch, uint32_t file, bool warns) {
  return tensors_of(&host, dict, torch, file, warns ? NoTensors::kWarn : NoTensors::kLeaveOut);
}

Result<RankStates> read_rank_states(const TorchFile& torch, uint32_t file) {
  XD_TRY_SET(const Dict root, root_of(torch, Layout::kRanks));
  return rank_states(root, torch, file);
}

Result<ModelStates> read_model_states(const Host& host, const TorchFile& torch, uint32_t file,
                                      Layout layout, bool warns) {
  XD_TRY_SET(const Dict root, root_of(torch, layout));
  if (layout == Layout::kRanks) XD_TRY(refuse_parts(root));
  ModelStates out;
  XD_TRY_SET(out.rank, rank_states(root, torch, file));
  XD_TRY_SET(out.mp_world_size, root.natural("mp_world_size"));
  XD_TRY_SET(out.groups, groups_of(root));
  if (root.find("frozen_param_shapes")) {
    XD_TRY_SET(const Dict dict, root.dict("frozen_param_shapes"));
    XD_TRY_SET(out.frozen, shapes_of(dict));
  }
  XD_TRY(add_dimensions(root, out));
  const Value* const module = root.find("module");
  out.has_module = module && module->kind != Kind::kText;  // old ones have a path there
  if (out.has_module) {
    XD_TRY_SET(const Dict dict, root.dict("module"));
    XD_TRY_SET(out.module, read_module(host, dict, torch, file, warns));
  }
  if (root.find("buffer_names")) {
    XD_TRY_SET(out.buffer_names, texts_of(root, "buffer_names"));
  }
  XD_TRY_SET(out.tied, tied_of(root));
  if (const auto dtype = dtype_of(root); dtype != manifest::DType::UNSPECIFIED)
    out.set_dtype(dtype);
  PlainData plain(torch.pickle());
  add_counters(root, plain, out.metadata);
  if (layout == Layout::kUniversal) XD_TRY(add_universal_info(root, plain, out));
  auto client = plain.map(torch.pickle().root(), "client_state", kOwnKeys);
  if (!client.entries.empty()) out.metadata.push_back({"client_state", {std::move(client)}});
  if (warns && plain.n_left_out() > 0)
    host.log(XD_LOG_WARN, cat(plain.n_left_out(),
                              " values of the training state are no plain data and are left "
                              "out: ",
                              common::listed(plain.left_out()),
                              plain.n_left_out() > plain.left_out().size() ? ", ..." : ""));
  return out;
}

}  // namespace crossdock::deepspeed
