// SPDX-License-Identifier: Apache-2.0
#include "plugins/writer_dcp/metadata.h"

#include <vector>

#include "plugins/torch/write/pickle_writer.h"

namespace crossdock::writer_dcp {
namespace {

using torch_write::PickleWriter;

constexpr std::string_view kModule = "torch.distributed.checkpoint.metadata";
constexpr std::string_view kVersion = "1.0.0";  // filesystem.CURRENT_DCP_VERSION

// The keys that lead to a tensor in the state dict; joined with dots they are its one key here.
using Path = std::vector<std::string>;

std::string flat(const Path& path) {
  std::string out;
  for (const std::string& key : path) out += cat(out.empty() ? "" : ".", key);
  return out;
}

// A chunk and where it lies.
struct Place {
  const Shard* shard;
  const Chunk* chunk;
};

class MetadataWriter {
 public:
  MetadataWriter(const Layout& layout, const Path& prefix)
      : layout_(layout), prefix_(prefix), places_(layout.entries.size()) {
    for (const Shard& shard : layout.shards) {
      for (const Chunk& chunk : shard.chunks) places_[chunk.entry].push_back({&shard, &chunk});
    }
  }

  std::string run() && {
    p_.object(kModule, "Metadata", [&] {
      p_.entry("state_dict_metadata",
               [&] { p_.dict([&] { each_name([&](auto& e, auto& path) { tensor(e, path); }); }); });
      p_.entry("planner_data", [&] {
        p_.dict([&] { each_name([&](auto&, auto& path) { planner_data(path); }); });
      });
      p_.entry("storage_data", [&] {
        p_.dict([&] { each_name([&](auto& e, auto& path) { storage_data(e, path); }); });
      });
      p_.entry("storage_meta", torch_write::None{});
      p_.entry("version", kVersion);
    });
    return std::move(p_).finish();
  }

 private:
  void each_name(auto&& put) {
    for (const Entry& entry : layout_.entries) {
      for (const std::string& name : entry.names) {
        Path path = prefix_;
        path.push_back(name);
        put(entry, path);
      }
    }
  }

  const std::vector<Place>& places_of(const Entry& entry) const {
    return places_[static_cast<size_t>(&entry - layout_.entries.data())];
  }

  void tensor(const Entry& entry, const Path& path) {
    p_.entry(flat(path), [&] {
      p_.object(kModule, "TensorStorageMetadata", [&] {
        p_.entry("properties", [&] { properties(entry.dtype); });
        p_.entry("size", [&] { p_.torch_size(entry.shape); });
        p_.entry("chunks", [&] {
          p_.list([&] {
            for (const Place& place : places_of(entry)) chunk(entry, *place.chunk);
          });
        });
      });
    });
  }

  // dtype, layout, requires_grad, memory_format, pin_memory: all but the first are of no use.
  void properties(manifest::DType dtype) {
    p_.object_of_state(kModule, "TensorProperties", [&] {
      p_.tuple([&] {
        p_.global("torch", torch_write::torch_name(dtype));
        p_.call("torch.serialization", "_get_layout", [&] { p_.put("torch.strided"); });
        p_.put(false);
        p_.call(kModule, "_MEM_FORMAT_ENCODING", [&] { p_.put(0); });
        p_.put(false);
      });
    });
  }

  void chunk(const Entry& entry, const Chunk& chunk) {
    p_.object(kModule, "ChunkStorageMetadata", [&] {
      p_.entry("offsets", [&] { p_.torch_size(offsets_of(entry, chunk)); });
      p_.entry("sizes", [&] { p_.torch_size(sizes_of(entry, chunk)); });
    });
  }

  void planner_data(const Path& path) {
    p_.entry(flat(path), [&] {
      p_.tuple([&] {
        for (const std::string& key : path) p_.put(key);
      });
    });
  }

  void storage_data(const Entry& entry, const Path& path) {
    uint64_t index = 0;
    for (const Place& place : places_of(entry)) {
      p_.object(kModule, "MetadataIndex", [&] {
        p_.entry("fqn", flat(path));
        p_.entry("index", index++);
        p_.entry("offset", [&] { p_.torch_size(offsets_of(entry, *place.chunk)); });
      });
      p_.object("torch.distributed.checkpoint.filesystem", "_StorageInfo", [&] {
        p_.entry("relative_path", place.shard->file);
        p_.entry("offset", place.chunk->offset);
        p_.entry("length", place.chunk->n_bytes);
      });
    }
  }

  const Layout& layout_;
  const Path& prefix_;
  std::vector<std::vector<Place>> places_;  // of each entry
  PickleWriter p_{torch_write::Memo::kOn};
};

}  // namespace

std::string metadata_of(const Layout& layout, const Path& prefix) {
  return MetadataWriter(layout, prefix).run();
}

}  // namespace crossdock::writer_dcp
