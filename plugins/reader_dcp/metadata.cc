// SPDX-License-Identifier: Apache-2.0
#include "plugins/reader_dcp/metadata.h"

#include <crossdock/bytes.hpp>
#include <crossdock/file_name.hpp>

#include <algorithm>
#include <tuple>

#include "plugins/common/quote.h"
#include "plugins/torch/read/builder.h"
#include "plugins/torch/read/pickle.h"

namespace crossdock::reader_dcp {
namespace {

using common::in_quotes;
using torch_read::Kind;
using torch_read::name_of;
using torch_read::Pickle;
using torch_read::Value;

// A chunk is some 6 objects and 45 values of the pickle: a model of a million chunks.
constexpr torch_read::PickleRules kRules{
    .max_protocol = 5, .max_objects = 8'000'000, .max_values = 64'000'000};

// Where torch has had these classes since 2.0.
constexpr std::string_view kModules[] = {"torch.distributed.checkpoint.metadata",
                                         "torch.distributed.checkpoint.filesystem",
                                         "torch.distributed._shard.checkpoint.metadata",
                                         "torch.distributed._shard.checkpoint.filesystem",
                                         "torch.distributed._shard.sharded_tensor.metadata"};

// Where an archive lies, by the tensor's name and the chunk's offsets.
struct Stored {
  std::string_view name;
  std::vector<uint64_t> offsets;
  Place place;

  using Key = std::tuple<const std::string_view&, const std::vector<uint64_t>&>;
  Key key() const { return {name, offsets}; }
};

class Parser {
 public:
  explicit Parser(const Pickle& pickle) : pickle_(pickle) {}

  Result<Metadata> run() {
    XD_TRY_SET(const Value metadata, attributes(pickle_.root(), "Metadata"));
    XD_TRY_SET(const Value storage, dict(metadata, "storage_data"));
    XD_TRY(read_storage(storage));
    const Value* paths = pickle_.find(metadata, "planner_data");
    if (paths && paths->kind == Kind::kDict) XD_TRY(read_paths(*paths));
    XD_TRY_SET(const Value entries, dict(metadata, "state_dict_metadata"));
    const auto items = pickle_.items(entries);
    for (size_t i = 0; i + 1 < items.size(); i += 2) {
      if (items[i].kind != Kind::kText)
        return corrupt(cat("expected names of tensors, found ", name_of(items[i].kind)));
      if (auto done = entry(pickle_.text(items[i]), items[i + 1]); !done)
        return std::move(done).error().in(in_quotes(pickle_.text(items[i])));
    }
    return std::move(out_);
  }

 private:
  // ---- values
  bool is_of(const Value& v, std::string_view name) const {
    if (v.kind != Kind::kOpaque) return false;
    const auto items = pickle_.items(v);
    return pickle_.text(items[1]) == name &&
           std::ranges::find(kModules, pickle_.text(items[0])) != std::end(kModules);
  }
  std::string found(const Value& v) const {
    return v.kind == Kind::kOpaque ? cat("an object of the class ", in_quotes(pickle_.class_of(v)))
                                   : std::string(name_of(v.kind));
  }
  // What an object of a class was given as its state: its module and name, what was called and with
  // what, and the state.
  Result<Value> state(const Value& v, std::string_view name) const {
    constexpr size_t kWithState = 5;
    if (!is_of(v, name))
      return unsupported(cat("expected torch's ", name, ", found ", found(v), ": nothing was run"));
    const auto items = pickle_.items(v);
    if (items.size() != kWithState)
      return corrupt(cat("expected one state of an object of ", name, ", found ",
                         items.size() < kWithState ? "none" : "more"));
    return items[kWithState - 1];
  }
  Result<Value> attributes(const Value& v, std::string_view name) const {
    XD_TRY_SET(const Value out, state(v, name));
    if (out.kind == Kind::kDict) return out;
    return corrupt(cat("expected the attributes of ", name, ", found ", found(out)));
  }
  Result<Value> attribute(const Value& attributes, std::string_view key) const {
    const Value* out = pickle_.find(attributes, key);
    if (out) return *out;
    return corrupt(cat("expected the attribute ", in_quotes(key), ", found none"));
  }
  Result<Value> dict(const Value& attributes, std::string_view key) const {
    XD_TRY_SET(const Value out, attribute(attributes, key));
    if (out.kind == Kind::kDict) return out;
    return corrupt(cat("expected ", in_quotes(key), " to be a dict, found ", found(out)));
  }
  Result<std::string_view> text(const Value& attributes, std::string_view key) const {
    XD_TRY_SET(const Value out, attribute(attributes, key));
    if (out.kind == Kind::kText) return pickle_.text(out);
    return corrupt(cat("expected ", in_quotes(key), " to be a string, found ", found(out)));
  }
  static Result<uint64_t> number(const Value& v, std::string_view what) {
    if (v.kind == Kind::kInt && static_cast<int64_t>(v.data) >= 0) return v.data;
    return corrupt(cat(
        "expected ", what, " of 0 or more, found ",
        v.kind == Kind::kInt ? cat(static_cast<int64_t>(v.data)) : std::string(name_of(v.kind))));
  }
  Result<std::vector<uint64_t>> numbers(const Value& attributes, std::string_view key) const {
    XD_TRY_SET(const Value v, attribute(attributes, key));
    if (v.kind != Kind::kTuple)
      return corrupt(cat("expected ", in_quotes(key), " to be a torch.Size, found ", found(v)));
    if (v.length > torch_read::kMaxDimensions)
      return torch_read::too_many("dimensions", torch_read::kMaxDimensions);
    std::vector<uint64_t> out;
    for (const Value& item : pickle_.tuple(v)) {
      XD_TRY_SET(out.emplace_back(), number(item, in_quotes(key)));
    }
    return out;
  }
  Result<void> count_name(size_t n) {
    n_name_bytes_ += n;
    if (n_name_bytes_ <= kMaxNameBytes) return {};
    return unsupported(
        cat("expected names of at most ", kMaxNameBytes, " bytes in all, found more"));
  }

  // ---- where archives lie
  Result<void> read_storage(const Value& storage) {
    const auto items = pickle_.items(storage);
    // The files' numbers follow from their names, so these come first.
    for (size_t i = 0; i + 1 < items.size(); i += 2) {
      XD_TRY_SET(const Value info, attributes(items[i + 1], "_StorageInfo"));
      XD_TRY_SET(const std::string_view file, text(info, "relative_path"));
      if (!is_safe_name(file))
        return corrupt(
            cat("expected the name of a file beside .metadata, found ", in_quotes(file)));
      if (files_.empty() || files_.back() != file) files_.push_back(file);
    }
    std::ranges::sort(files_);
    files_.erase(std::unique(files_.begin(), files_.end()), files_.end());
    for (const std::string_view file : files_) {
      XD_TRY(count_name(file.size()));
      out_.files.emplace_back(file);
    }
    for (size_t i = 0; i + 1 < items.size(); i += 2) XD_TRY(read_place(items[i], items[i + 1]));
    std::ranges::sort(stored_, {}, &Stored::key);
    const auto twice = std::ranges::adjacent_find(stored_, {}, &Stored::key);
    if (twice == stored_.end()) return {};
    return corrupt(
        cat("expected each chunk in one place, found one of ", in_quotes(twice->name), " in two"));
  }

  Result<void> read_place(const Value& key, const Value& value) {
    XD_TRY_SET(const Value index, attributes(key, "MetadataIndex"));
    XD_TRY_SET(const Value info, attributes(value, "_StorageInfo"));
    Stored out;
    XD_TRY_SET(out.name, text(index, "fqn"));
    const Value* offset = pickle_.find(index, "offset");
    if (offset && offset->kind != Kind::kNone) {
      XD_TRY_SET(out.offsets, numbers(index, "offset"));
    }
    XD_TRY_SET(const std::string_view file, text(info, "relative_path"));
    const auto at = std::ranges::lower_bound(files_, file);
    out.place.file = static_cast<uint32_t>(at - files_.begin());
    XD_TRY_SET(const Value begin, attribute(info, "offset"));
    XD_TRY_SET(out.place.offset, number(begin, "\"offset\""));
    XD_TRY_SET(const Value length, attribute(info, "length"));
    XD_TRY_SET(out.place.n_bytes, number(length, "\"length\""));
    const Value* transforms = pickle_.find(info, "transform_descriptors");
    const bool is_plain = !transforms || transforms->kind == Kind::kNone ||
                          (transforms->kind == Kind::kTuple && transforms->length == 0) ||
                          (transforms->kind == Kind::kList && pickle_.items(*transforms).empty());
    if (!is_plain)
      return unsupported(cat(in_quotes(out.name),
                             ": expected bytes as torch.save wrote them, found some that an "
                             "extension transformed (transform_descriptors): load and save them "
                             "again without"));
    stored_.push_back(std::move(out));
    return {};
  }

  Result<Place> place_of(std::string_view name, const std::vector<uint64_t>& offsets) const {
    const Stored::Key key(name, offsets);
    const auto it = std::ranges::lower_bound(stored_, key, {}, &Stored::key);
    if (it != stored_.end() && it->key() == key) return it->place;
    std::string at;
    for (const uint64_t n : offsets) at += cat(at.empty() ? "" : ", ", n);
    return corrupt(cat("expected a place in storage_data for its chunk at [", at, "], found none"));
  }

  // ---- names
  Result<void> read_paths(const Value& paths) {
    const auto items = pickle_.items(paths);
    for (size_t i = 0; i + 1 < items.size(); i += 2) {
      if (items[i].kind == Kind::kText && items[i + 1].kind == Kind::kTuple)
        paths_.emplace_back(pickle_.text(items[i]), items[i + 1]);
    }
    std::ranges::stable_sort(paths_, {}, &std::pair<std::string_view, Value>::first);
    return {};
  }

  // The keys that make up the name when joined; else the name.
  Result<std::vector<std::string>> path_of(std::string_view name) {
    XD_TRY(count_name(2 * name.size()));
    const auto it =
        std::ranges::lower_bound(paths_, name, {}, &std::pair<std::string_view, Value>::first);
    const std::vector<std::string> flat{std::string(name)};
    if (it == paths_.end() || it->first != name) return flat;
    std::vector<std::string> out;
    size_t n = 0;  // of the name's bytes
    for (const Value& key : pickle_.tuple(it->second)) {
      const std::string_view rest = name.substr(std::min(n, name.size()));
      const std::string text = key.kind == Kind::kText && key.length <= rest.size()
                                   ? std::string(pickle_.text(key))
                               : key.kind == Kind::kInt ? cat(static_cast<int64_t>(key.data))
                                                        : std::string();
      if (!rest.starts_with(text)) return flat;
      n += text.size();
      if (n < name.size() && name[n] != '.') return flat;
      ++n;
      out.push_back(text);
    }
    return n == name.size() + 1 ? out : flat;
  }

  // ---- entries
  Result<void> entry(std::string_view name, const Value& v) {
    if (is_of(v, "BytesStorageMetadata")) {
      ObjectEntry& object = out_.objects.emplace_back();
      object.name = name;
      XD_TRY_SET(object.path, path_of(name));
      XD_TRY_SET(object.place, place_of(name, {}));
      return {};
    }
    XD_TRY_SET(const Value tensor, attributes(v, "TensorStorageMetadata"));
    TensorEntry& out = out_.tensors.emplace_back();
    out.name = name;
    XD_TRY_SET(out.path, path_of(name));
    XD_TRY_SET(const Value properties, attribute(tensor, "properties"));
    XD_TRY_SET(out.dtype, dtype_of(properties));
    XD_TRY_SET(out.shape, numbers(tensor, "size"));
    XD_TRY_SET(const Value chunks, attribute(tensor, "chunks"));
    if (chunks.kind != Kind::kList)
      return corrupt(cat("expected a list of chunks, found ", found(chunks)));
    for (const Value& item : pickle_.items(chunks)) XD_TRY(chunk(item, out));
    return {};
  }

  Result<void> chunk(const Value& v, TensorEntry& tensor) {
    if (++n_chunks_ > kMaxChunks) return torch_read::too_many("chunks", kMaxChunks);
    XD_TRY_SET(const Value box, attributes(v, "ChunkStorageMetadata"));
    Chunk out;
    XD_TRY_SET(out.offsets, numbers(box, "offsets"));
    XD_TRY_SET(out.sizes, numbers(box, "sizes"));
    if (out.offsets.size() != tensor.shape.size() || out.sizes.size() != tensor.shape.size())
      return corrupt(cat("expected chunks of ", tensor.shape.size(), " dimensions, found one of ",
                         out.sizes.size()));
    // Ranks without a row of the tensor say so, and need not have written anything.
    if (out.is_empty()) return {};
    XD_TRY_SET(out.place, place_of(tensor.name, out.offsets));
    tensor.chunks.push_back(std::move(out));
    return {};
  }

  // The state is the tuple (dtype, layout, requires_grad, memory format, pin_memory).
  Result<manifest::DType> dtype_of(const Value& properties) const {
    XD_TRY_SET(const Value v, state(properties, "TensorProperties"));
    const auto parts = v.kind == Kind::kTuple ? pickle_.tuple(v) : std::span<const Value>();
    if (parts.empty())
      return corrupt(cat("expected the state of TensorProperties, found ", found(v)));
    if (torch_read::is_global(parts[0], torch_read::Global::kDType))
      return static_cast<manifest::DType>(parts[0].length);
    return unsupported(cat("expected an element type of plain values, found ", found(parts[0])));
  }

  static constexpr size_t kMaxChunks = 4'000'000;

  const Pickle& pickle_;
  Metadata out_;
  std::vector<std::string_view> files_;                    // as out_.files
  std::vector<Stored> stored_;                             // sorted
  std::vector<std::pair<std::string_view, Value>> paths_;  // sorted by name
  size_t n_name_bytes_ = 0, n_chunks_ = 0;
};

}  // namespace

bool Chunk::is_empty() const { return std::ranges::find(sizes, 0) != sizes.end(); }

Result<Metadata> parse_metadata(std::string_view bytes) {
  XD_TRY_SET(const Pickle pickle, torch_read::read_pickle(bytes, 0, kRules));
  if (pickle.end() != bytes.size())
    return corrupt(cat("expected its end at byte ", pickle.end(), ", found ",
                       bytes.size() - pickle.end(), " bytes more"));
  return Parser(pickle).run();
}

}  // namespace crossdock::reader_dcp
