// SPDX-License-Identifier: Apache-2.0
#include "plugins/reader_bin/checkpoint.h"

#include "plugins/common/hf_weights.h"
#include "plugins/common/quote.h"
#include "plugins/reader_bin/state_dict.h"

#include <algorithm>
#include <tuple>

namespace crossdock::reader_bin {

namespace {

using common::in_quotes;
using torch_read::TorchFile;

constexpr std::string_view kOthers[] = {".pt", ".pth", ".ckpt", ".t7"};
constexpr std::string_view kStems[] = {"pytorch_model", "diffusion_pytorch_model"};
constexpr common::WeightNames kNames{kStems, ".bin", kOthers, "adapter_model.bin", 80, 70};

Result<void> add_file(const Host& host, const Input& input, const std::string& name,
                      const OpenOptions& options, Checkpoint& out) {
  XD_TRY_SET(const Source source, input.open(host, name));
  XD_TRY_SET(auto torch, TorchFile::open(host, source, options.verify_crc));
  XD_TRY_SET(const auto model, find_model(host, torch->pickle(), options.state_dict_path));
  for (const ModelTensor& m : model) {
    const torch_read::Tensor& t = *m.tensor;
    auto stored = torch_read::StoredTensor::of(*torch, t);
    if (!stored) return std::move(stored).error().in(cat("tensor ", in_quotes(m.name)));
    out.tensors.push_back({m.name, *std::move(stored), static_cast<uint32_t>(out.files.size()),
                           t.is_parameter, t.is_parameter && !t.requires_grad});
  }
  torch->drop_pickle();
  out.files.push_back({name, source.size(host), std::move(torch)});
  return {};
}

// Names of the same elements of the same storage are one tensor: tied weights.
void find_aliases(Checkpoint& c) {
  using Place = std::tuple<uint32_t, uint32_t, uint64_t, manifest::DType, std::vector<uint64_t>,
                           std::vector<uint64_t>>;
  std::map<Place, std::vector<uint64_t>> by_place;
  for (uint64_t i = 0; i < c.tensors.size(); ++i) {
    const BinTensor& t = c.tensors[i];
    const auto& [dtype, shape, strides, offset, record] = t.stored;
    if (t.stored.n_elems() > 0)
      by_place[{t.file, record, offset, dtype, shape, strides}].push_back(i);
  }
  for (auto& [place, tensors] : by_place) {
    if (tensors.size() > 1) c.aliases.push_back({std::move(tensors)});
  }
}

}  // namespace

Result<Checkpoint> open_checkpoint(const Host& host, const Input& input,
                                   const manifest::Value& config, const OpenOptions& options) {
  const auto* map = config.get<manifest::ValueMap>();
  if (map && map->find("transformers_weights")) {
    return invalid(
        "config.json: expected no transformers_weights, which names a .safetensors file, found it: "
        "use "
        "--from safetensors, or name the file to read");
  }
  XD_TRY_SET(const auto chosen, common::choose_files(host, input, kNames, options.variant));
  Checkpoint out;
  for (const std::string& file : chosen.files) {
    if (host.cancelled()) return Error{XD_CANCELLED, "cancelled"};
    if (auto added = add_file(host, input, file, options, out); !added)
      return common::in_file(file, std::move(added).error());
  }
  std::vector<common::PlacedTensor> placed;
  uint64_t n_bytes = 0;
  for (const BinTensor& t : out.tensors) {
    placed.push_back({t.name, t.file});
    n_bytes += t.stored.n_elems() * t.stored.elem_bytes();
  }
  // Names that are twice in one file are the manifest's to refuse.
  if (chosen.files.size() > 1 || chosen.index) XD_TRY(common::check_placed(host, chosen, placed));
  common::compare_total_size(host, chosen, n_bytes);
  find_aliases(out);
  return out;
}

int score(const Host& host, const Input& input) {
  const std::string name = input.named(host);
  if (name.empty()) return common::score(input.names(host), kNames);
  if (is_index_name(name)) return common::has_suffix(name, kNames) ? kNames.standard_score : 0;
  // The content tells, whatever the name.
  const auto source = input.open(host, name);
  if (source && torch_read::looks_like_torch(host, *source)) return 90;
  if (common::has_suffix(name, kNames)) return 10;  // what is wrong with it is ours to say
  return source && !torch_read::what_it_is_instead(host, *source).empty() ? 1 : 0;
}

}  // namespace crossdock::reader_bin
