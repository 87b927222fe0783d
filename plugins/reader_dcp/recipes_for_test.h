// SPDX-License-Identifier: Apache-2.0

// Folders of torch.distributed.checkpoint as short texts: the inputs of this folder's tests and the
// seeds of its fuzzer.
#pragma once

#include "plugins/torch/read/recipes_for_test.h"

#include <map>
#include <span>

namespace crossdock::reader_dcp::recipe {

using namespace torch_read::recipe;

using Sizes = std::vector<uint64_t>;

inline const std::string kMetadata = "torch.distributed.checkpoint.metadata";
inline const std::string kFilesystem = "torch.distributed.checkpoint.filesystem";

inline std::string torch_size(const Sizes& sizes) {
  std::string all;
  for (const uint64_t n : sizes) all += number(static_cast<int64_t>(n));
  return call(global("torch", "Size"), {tuple({all})});
}
inline std::string object(std::string_view module, std::string_view name,
                          const std::string& state) {
  return global(module, name) + ")\x81" + state + "b";
}
inline std::string properties(std::string_view dtype) {
  return object(
      kMetadata, "TensorProperties",
      tuple({global("torch", dtype),
             call(global("torch.serialization", "_get_layout"), {text("torch.strided")}), "\x89",
             call(global(kMetadata, "_MEM_FORMAT_ENCODING"), {number(0)}), "\x89"}));
}
inline std::string chunk(const Sizes& offsets, const Sizes& sizes) {
  return object(kMetadata, "ChunkStorageMetadata",
                dict({text("offsets"), torch_size(offsets), text("sizes"), torch_size(sizes)}));
}
inline std::string index_of(std::string_view name, const std::string& offset) {
  return object(kMetadata, "MetadataIndex",
                dict({text("fqn"), text(name), text("index"), number(0), text("offset"), offset}));
}
inline std::string info_of(std::string_view file, uint64_t offset, uint64_t length) {
  return object(
      kFilesystem, "_StorageInfo",
      dict({text("relative_path"), text(file), text("offset"), number(static_cast<int64_t>(offset)),
            text("length"), number(static_cast<int64_t>(length))}));
}

// A whole .metadata of entries that are keys and values in turn.
inline std::string metadata(const std::string& tensors, const std::string& paths,
                            const std::string& places) {
  const auto filled = [](const std::string& items) {
    return items.empty() ? "}" : "}(" + items + "u";
  };
  return pickle(object(kMetadata, "Metadata",
                       dict({text("state_dict_metadata"), filled(tensors), text("planner_data"),
                             filled(paths), text("storage_data"), filled(places),
                             text("storage_meta"), "N", text("version"), text("1.0.0")})));
}

struct Part {
  Sizes offsets, sizes;
  std::string file = "__0_0.distcp";
};

// The files of a folder; the value of element i of each tensor is i + its seed, as a float32.
class Folder {
 public:
  // `keys`: those of the nested dict, joined with '/'.
  Folder& add(const std::string& keys, const Sizes& shape, const std::vector<Part>& parts,
              float seed = 0) {
    const std::string name = add_name(keys);
    std::string chunks;
    for (const Part& part : parts) {
      chunks += chunk(part.offsets, part.sizes);
      const std::string archive = archive_of(shape, part, seed);
      place(name, torch_size(part.offsets), part.file, archive);
    }
    tensors_ += text(name) + object(kMetadata, "TensorStorageMetadata",
                                    dict({text("properties"), properties("float32"), text("size"),
                                          torch_size(shape), text("chunks"), list({chunks})}));
    return *this;
  }
  // All of it, in the first file.
  Folder& add(const std::string& keys, const Sizes& shape, float seed = 0) {
    return add(keys, shape, {{Sizes(shape.size(), 0), shape}}, seed);
  }
  // A Python object: the opcodes of its value.
  Folder& add_object(const std::string& keys, const std::string& value) {
    const std::string name = add_name(keys);
    tensors_ += text(name) + global(kMetadata, "BytesStorageMetadata") + ")\x81";
    place(name, "N", "__0_0.distcp", torch_zip(value, {}));
    return *this;
  }

  std::map<std::string, std::string> files(const std::string& folder = "") const {
    std::map<std::string, std::string> out;
    for (const auto& [name, bytes] : files_) out[folder + name] = bytes;
    out[folder + ".metadata"] = metadata(tensors_, paths_, places_);
    return out;
  }

  // Float values of elements [begin, end).
  static std::string values(uint64_t begin, uint64_t end, float seed = 0) {
    std::string out;
    for (uint64_t i = begin; i < end; ++i) {
      const float value = static_cast<float>(i) + seed;
      out.append(reinterpret_cast<const char*>(&value), sizeof value);
    }
    return out;
  }

 private:
  std::string add_name(const std::string& keys) {
    std::string name, path;
    for (size_t begin = 0; begin <= keys.size();) {
      const size_t end = std::min(keys.find('/', begin), keys.size());
      const std::string key = keys.substr(begin, end - begin);
      name += (begin == 0 ? "" : ".") + key;
      const bool is_number = key.find_first_not_of("0123456789") == key.npos;
      path += is_number ? number(std::stoi(key)) : text(key);
      begin = end + 1;
    }
    paths_ += text(name) + tuple({path});
    return name;
  }

  void place(const std::string& name, const std::string& offset, const std::string& file,
             const std::string& archive) {
    places_ += index_of(name, offset) + info_of(file, files_[file].size(), archive.size());
    files_[file] += archive;
  }

  static std::string archive_of(const Sizes& shape, const Part& part, float seed) {
    std::string data;
    uint64_t n = 1;
    for (const uint64_t size : part.sizes) n *= size;
    for (uint64_t i = 0; i < n; ++i) {
      uint64_t rest = i, at = 0, stride = 1;
      for (size_t d = shape.size(); d-- > 0;) {
        at += (part.offsets[d] + rest % part.sizes[d]) * stride;
        rest /= part.sizes[d];
        stride *= shape[d];
      }
      data += values(at, at + 1, seed);
    }
    std::string sizes = "(", strides;
    uint64_t stride = 1;
    for (size_t d = part.sizes.size(); d-- > 0;) {
      strides = number(static_cast<int64_t>(stride)) + strides;
      stride *= part.sizes[d];
    }
    for (const uint64_t size : part.sizes) sizes += number(static_cast<int64_t>(size));
    const std::string value = call(global("torch._utils", "_rebuild_tensor_v2"),
                                   {storage("0", static_cast<int64_t>(n)), number(0), sizes + "t",
                                    "(" + strides + "t", "\x89", ordered_dict({})});
    return torch_zip(value, {{"0", data}});
  }

  std::string tensors_, paths_, places_;
  std::map<std::string, std::string> files_;
};

// One folder with all that .metadata can say, in one shard: whose bytes the fuzzer keeps, while it
// changes .metadata.
inline Folder folder_for_fuzzer() {
  return Folder()
      .add("model/a.w", {4, 2}, {{{0, 0}, {2, 2}}, {{2, 0}, {2, 2}}})
      .add("model/b", {})
      .add("optim/state/a.w/exp_avg", {4, 2})
      .add("optim/state/b/step", {}, 3)
      .add_object("optim/param_groups/0/params", list({text("b")}))
      .add_object("step", number(3));
}
inline std::string shard_for_fuzzer() { return folder_for_fuzzer().files().at("__0_0.distcp"); }

}  // namespace crossdock::reader_dcp::recipe
