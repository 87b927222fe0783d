// SPDX-License-Identifier: Apache-2.0
#include "plugins/reader_dcp/checkpoint.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <set>
#include <tuple>

#include "plugins/common/file_names.h"
#include "plugins/common/hf_folder.h"
#include "plugins/common/quote.h"
#include "plugins/reader_dcp/archive.h"
#include "plugins/reader_dcp/choose.h"
#include "plugins/reader_dcp/folder.h"
#include "plugins/reader_dcp/training.h"

namespace crossdock::reader_dcp {
namespace {

using common::in_quotes;

Result<Metadata> read_metadata(const Host& host, const Input& input, const std::string& name) {
  XD_TRY_SET(const Source source, input.open(host, name));
  const uint64_t size = source.size(host);
  if (size == 0 || size > kMaxMetadataBytes)
    return unsupported(cat(name, ": expected at most ", kMaxMetadataBytes, " bytes, found ", size));
  XD_TRY_SET(const Buffer bytes, Buffer::make(host, size));
  XD_TRY(source.read(host, 0, bytes.span()));
  auto out = parse_metadata(as_text(bytes.span()));
  if (!out) return std::move(out).error().in(name);
  return out;
}

// The shards and tensors of one .metadata.
class Folder {
 public:
  Folder(const Host& host, const Input& input, std::string prefix, const OpenOptions& options,
         Checkpoint& out)
      : host_(host),
        input_(input),
        prefix_(std::move(prefix)),
        options_(options),
        names_(input.names(host)),
        out_(out) {}

  Result<void> open() {
    XD_TRY_SET(metadata_, read_metadata(host_, input_, cat(prefix_, kMetadataFile)));
    files_.resize(metadata_.files.size());
    return {};
  }

  const Metadata& metadata() const { return metadata_; }

  Reach reach() {
    return {[this](const TensorEntry& entry, const std::string& name) { return add(entry, name); },
            [this](const TensorEntry& entry) { return scalar(entry); },
            [this](const ObjectEntry& entry) { return object(entry); }};
  }

  Result<void> add(const TensorEntry& entry, const std::string& name) {
    auto made = tensor(entry, name);
    if (!made) return in_tensor(entry, std::move(made).error());
    out_.tensors.push_back(*std::move(made));
    return {};
  }

 private:
  static Error in_tensor(const TensorEntry& entry, Error error) {
    return error.held_by_host ? std::move(error)
                              : std::move(error).in(cat("tensor ", in_quotes(entry.name)));
  }

  // A shard, which is opened when the first tensor needs it.
  Result<uint32_t> file(const Place& place) {
    std::optional<uint32_t>& index = files_[place.file];
    if (index) return *index;
    const std::string name = prefix_ + metadata_.files[place.file];
    if (!std::ranges::binary_search(names_, name))
      return Error{XD_NOT_FOUND, cat("expected the shard ", name,
                                     ", which .metadata names, found "
                                     "none: copy the whole folder")};
    XD_TRY_SET(const Source source, input_.open(host_, name));
    index = static_cast<uint32_t>(out_.files.size());
    out_.files.push_back({name, source.size(host_), source});
    return *index;
  }

  Result<DcpTensor> tensor(const TensorEntry& entry, const std::string& name) {
    if (host_.cancelled()) return Error{XD_CANCELLED, "cancelled"};
    DcpTensor out{name, entry.dtype, entry.shape, {}, {}, 0, 0, false};
    for (const Chunk& chunk : entry.chunks) out.boxes.push_back({chunk.offsets, chunk.sizes, 0, 0});
    XD_TRY(common::check_tiling(out.shape, out.boxes, pairs_));
    for (size_t i = 0; i < out.boxes.size(); ++i) {
      const Place& place = entry.chunks[i].place;
      XD_TRY_SET(out.boxes[i].file, file(place));
      const CheckpointFile& shard = out_.files[out.boxes[i].file];
      auto values =
          find_values(host_, shard, place, entry.dtype, out.boxes[i].sizes, options_.verify_crc);
      if (!values) {
        return values.error().held_by_host
                   ? std::move(values).error()
                   : std::move(values).error().in(cat(shard.name, " at byte ", place.offset));
      }
      out.boxes[i].data = values->data;
      if (values->strides.empty()) continue;
      if (out.boxes.size() > 1)
        return unsupported(
            "expected chunks whose values are row-major, found one of several that is transposed: "
            "save the tensors contiguous");
      out.strides = values->strides;
      out.storage_offset = values->storage_offset;
      out.storage_elements = values->storage_elements;
    }
    return out;
  }

  Result<double> scalar(const TensorEntry& entry) {
    auto made = tensor(entry, entry.name);
    if (!made) return in_tensor(entry, std::move(made).error());
    const bool is_float = made->dtype == manifest::DType::F32;
    if (made->boxes.size() != 1 || made->n_elems() != 1 ||
        (!is_float && made->dtype != manifest::DType::I64))
      return -1.0;
    std::array<std::byte, 8> bytes{};
    XD_TRY(out_.files[made->boxes[0].file].source.read(host_, made->boxes[0].data,
                                                       std::span(bytes).first(made->elem_bytes())));
    float as_float;
    int64_t as_int;
    std::memcpy(&as_float, bytes.data(), sizeof as_float);
    std::memcpy(&as_int, bytes.data(), sizeof as_int);
    return is_float ? double{as_float} : static_cast<double>(as_int);
  }

  Result<manifest::Value> object(const ObjectEntry& entry) {
    XD_TRY_SET(const uint32_t index, file(entry.place));
    auto out = read_object(host_, out_.files[index], entry.place);
    if (out || out.error().held_by_host) return out;
    return std::move(out).error().in(in_quotes(entry.name));
  }

  const Host& host_;
  const Input& input_;
  const std::string prefix_;
  const OpenOptions& options_;
  const std::vector<std::string> names_;  // sorted by the host
  Checkpoint& out_;
  Metadata metadata_;
  std::vector<std::optional<uint32_t>> files_;  // of metadata_.files, in out_.files
  uint64_t pairs_ = common::kMaxPairs;
};

// Names of the same chunks are one tensor: tied weights, of which our own writer writes one copy.
void find_aliases(Checkpoint& c) {
  using Key = std::tuple<manifest::DType, std::vector<uint64_t>,
                         std::vector<std::pair<uint32_t, uint64_t>>>;
  std::map<Key, std::vector<uint64_t>> by_place;
  for (uint64_t i = 0; i < c.tensors.size(); ++i) {
    const DcpTensor& t = c.tensors[i];
    std::vector<std::pair<uint32_t, uint64_t>> places;
    for (const common::Box& box : t.boxes) places.emplace_back(box.file, box.data);
    if (!places.empty()) by_place[{t.dtype, t.shape, std::move(places)}].push_back(i);
  }
  for (auto& [place, tensors] : by_place) {
    if (tensors.size() > 1) c.aliases.push_back({std::move(tensors)});
  }
}

// Ranks that saved, by torch's names of files: "__3_0.distcp" is the first of rank 3. 0: other
// names.
int64_t n_ranks(const Metadata& metadata) {
  std::set<std::string_view> ranks;
  for (const std::string& file : metadata.files) {
    const std::string_view name = common::base_name(file);
    const size_t end = name.find('_', 2);
    if (!name.starts_with("__") || !name.ends_with(".distcp") || end == name.npos) return 0;
    ranks.insert(name.substr(2, end - 2));
  }
  return static_cast<int64_t>(ranks.size());
}

void warn_left_out(const Host& host, const Metadata& metadata, const Choice& choice) {
  if (!choice.left_out.empty())
    host.log(XD_LOG_WARN,
             cat(choice.left_out.size(), " tensors lie beside the model and are left out: ",
                 common::listed(choice.left_out), "; --state-dict-path chooses another part"));
  std::vector<std::string> objects;
  for (const ObjectEntry& entry : metadata.objects) {
    if (!is_of_optimizer(entry)) objects.push_back(entry.name);
  }
  if (!objects.empty())
    host.log(XD_LOG_WARN, cat(objects.size(),
                              " Python objects are left out, for nothing that is pickled is run: ",
                              common::listed(objects)));
}

}  // namespace

Result<Checkpoint> open_checkpoint(const Host& host, const Input& input,
                                   const OpenOptions& options) {
  XD_TRY_SET(const Folders folders, find_folders(host, input));
  Checkpoint out;
  Folder model(host, input, folders.model, options, out);
  XD_TRY(model.open());
  XD_TRY_SET(const Choice choice, choose_model(model.metadata().tensors, options.state_dict_path));
  for (const Named& named : choice.model)
    XD_TRY(model.add(model.metadata().tensors[named.tensor], named.name));
  find_aliases(out);
  warn_left_out(host, model.metadata(), choice);
  out.n_ranks = n_ranks(model.metadata());
  XD_TRY(add_training(host, model.metadata(), model.reach(), out));
  if (!folders.optimizer) return out;
  Folder optimizer(host, input, *folders.optimizer, options, out);
  XD_TRY(optimizer.open());
  XD_TRY(add_training(host, optimizer.metadata(), optimizer.reach(), out));
  return out;
}

}  // namespace crossdock::reader_dcp
