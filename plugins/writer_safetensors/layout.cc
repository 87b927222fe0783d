// SPDX-License-Identifier: Apache-2.0
#include "plugins/writer_safetensors/layout.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "plugins/common/quote.h"
#include "plugins/writer_safetensors/json_string.h"

namespace crossdock::writer_safetensors {
namespace {

using common::in_quotes;
using manifest::DType;
using manifest::Manifest;
using manifest::Tensor;

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the reference's MAX_HEADER_SIZE
constexpr uint64_t kAlignment = 8;                 // of the data, and so of the largest elements

Error in_tensor(const Tensor& tensor, Error error) {
  return std::move(error).in(cat("tensor ", in_quotes(tensor.name)));
}

Result<Written> write_as(const Tensor& tensor, uint64_t index, common::FloatCast cast) {
  auto out = common::cast_tensor(tensor, index, cast);
  if (!out) return in_tensor(tensor, std::move(out).error());
  if (tensor.target() == "__metadata__")
    return in_tensor(tensor, invalid("expected a name that safetensors can have, found "
                                     "\"__metadata__\", which is the header's own: give it another "
                                     "with --rename FROM=TO"));
  if (out->dtype == DType::C32 || out->dtype == DType::C128)
    return in_tensor(tensor,
                     unsupported(cat("expected an element type that safetensors has, found ",
                                     manifest::name(out->dtype),
                                     ": save it as C64 in the source, or as two real tensors")));
  return Written{*out, 0};
}

// As huggingface_hub's split_state_dict_into_shards_factory: in order, a tensor larger than a shard
// in a file of its own, which comes before the one that was being filled.
std::vector<File> split(std::vector<Written> tensors, uint64_t shard_bytes) {
  std::vector<File> out;
  File current;
  for (Written& t : tensors) {
    if (t.n_bytes > shard_bytes) {
      out.push_back({{}, {t}, t.n_bytes, 0});
      continue;
    }
    if (t.n_bytes > shard_bytes - current.data_bytes) out.push_back(std::exchange(current, {}));
    current.data_bytes += t.n_bytes;
    current.tensors.push_back(t);
  }
  if (!current.tensors.empty() || out.empty()) out.push_back(std::move(current));
  return out;
}

// Larger elements first, so that each is aligned without holes, which the format does not allow.
void place(File& file) {
  std::stable_sort(file.tensors.begin(), file.tensors.end(),
                   [](const Written& a, const Written& b) {
                     return manifest::info(a.dtype).bits > manifest::info(b.dtype).bits;
                   });
  uint64_t at = 0;
  for (Written& t : file.tensors) at = (t.offset = at) + t.n_bytes;
}

Result<void> check_total(const std::vector<Written>& tensors) {
  uint64_t total = kMaxHeaderBytes;
  for (const Written& t : tensors) {
    const auto sum = checked_add(total, t.n_bytes);
    if (!sum) return unsupported("expected tensors of fewer than 2^64 bytes, found more");
    total = *sum;
  }
  return {};
}

}  // namespace

Result<std::vector<File>> make_files(const Manifest& model, const Settings& settings) {
  std::vector<Written> tensors;
  for (uint64_t i = 0; i < model.tensors.size(); ++i) {
    const Tensor& tensor = model.tensors[i];
    if (!tensor.excluded.empty() || tensor.role == manifest::Role::kOptimizerState) continue;
    XD_TRY_SET(const Written written, write_as(tensor, i, settings.cast));
    tensors.push_back(written);
  }
  XD_TRY(check_total(tensors));
  std::vector<File> files = split(std::move(tensors), settings.shard_bytes);
  for (size_t i = 0; i < files.size(); ++i) {
    File& file = files[i];
    file.name = files.size() == 1
                    ? std::string(kSingleFile)
                    : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, files.size());
    place(file);
    file.head_bytes = head(file, model).size();
    const uint64_t header_bytes = file.head_bytes - sizeof(uint64_t);
    if (header_bytes > kMaxHeaderBytes)
      return unsupported(cat("expected a header of at most ", kMaxHeaderBytes, " bytes in ",
                             file.name, ", found ", header_bytes, " for ", file.tensors.size(),
                             " tensors: use a smaller --shard-size"));
  }
  return files;
}

std::string head(const File& file, const Manifest& model) {
  std::string out(sizeof(uint64_t), '\0');
  out += R"({"__metadata__":{"format":"pt"})";
  for (const Written& t : file.tensors) {
    const Tensor& tensor = model.tensors[t.tensor];
    fmt::format_to(std::back_inserter(out),
                   R"(,{}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})",
                   json_string(tensor.target(), Escapes::kNeeded), manifest::name(t.dtype),
                   fmt::join(tensor.shape, ","), t.offset, t.offset + t.n_bytes);
  }
  out += '}';
  out.resize(round_up(out.size(), kAlignment), ' ');
  std::string length;
  put_le(length, uint64_t{out.size() - sizeof(uint64_t)});
  return out.replace(0, sizeof(uint64_t), length);
}

// As json.dumps(index, indent=2, sort_keys=True) gives it to save_pretrained.
std::string index_text(const std::vector<File>& files, const Manifest& model) {
  uint64_t n_parameters = 0, n_bytes = 0;
  std::vector<std::pair<std::string_view, std::string_view>> map;
  for (const File& file : files) {
    n_bytes += file.data_bytes;
    for (const Written& t : file.tensors) {
      const Tensor& tensor = model.tensors[t.tensor];
      if (tensor.role == manifest::Role::kParameter) n_parameters += t.n_elems;
      map.emplace_back(tensor.target(), file.name);
    }
  }
  std::sort(map.begin(), map.end());  // UTF-8 sorts as code points do
  std::string out = fmt::format(
      "{{\n  \"metadata\": {{\n    \"total_parameters\": {},\n    \"total_size\": {}\n  }},\n"
      "  \"weight_map\": {{",
      n_parameters, n_bytes);
  for (const auto& [name, file] : map) {
    out += cat(out.back() == '{' ? "\n    " : ",\n    ", json_string(name, Escapes::kBeyondAscii),
               ": \"", file, '"');
  }
  return out + "\n  }\n}\n";
}

}  // namespace crossdock::writer_safetensors
