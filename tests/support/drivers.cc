// The drivers of memory_host.h: they run a plugin as the real host does, and check what it did.
#include "tests/support/memory_host.h"

#include <atomic>
#include <thread>

namespace crossdock::test {

namespace {

// One call of the plugin, with an error slot of its own.
template <class Call>
Result<void> call(const char* name, Call&& body) {
  std::string text;
  const xd_status status = body(reinterpret_cast<xd_error*>(&text));
  if (status == XD_OK) return {};
  if (text.empty())
    return Error{XD_INTERNAL,
                 cat("the plugin's ", name, "() failed with ", status, " and no message")};
  return Error{status, std::move(text)};
}

xd_bytes* sink(std::string& out) { return reinterpret_cast<xd_bytes*>(&out); }

// The options as the real host gives them: checked, and with the fallbacks filled in.
class OptionTable {
 public:
  static Result<OptionTable> make(const xd_plugin_desc& plugin, const OptionValues& given) {
    OptionTable out;
    std::set<std::string> known;
    for (auto option = plugin.options; option && *option; ++option) {
      const std::string name = (*option)->name;
      known.insert(name);
      bool found = false;
      for (const auto& [key, value] : given) {
        if (key == name) out.values_.emplace_back(key, value), found = true;
      }
      if (found || std::string_view((*option)->type) == "list") continue;
      if (!(*option)->fallback) return invalid(cat("option \"", name, "\" is required"));
      out.values_.emplace_back(name, (*option)->fallback);
    }
    for (const auto& [key, value] : given) {
      if (!known.contains(key)) return invalid(cat("the plugin has no option \"", key, "\""));
    }
    for (const auto& [key, value] : out.values_)
      out.options_.push_back({XD_INIT_SIZE(xd_option), 0, key.c_str(), value.c_str()});
    for (const xd_option& option : out.options_) out.pointers_.push_back(&option);
    out.pointers_.push_back(nullptr);
    return out;
  }
  OptionTable(OptionTable&&) = default;
  const xd_option* const* get() const { return pointers_.data(); }

 private:
  OptionTable() = default;
  std::vector<std::pair<std::string, std::string>>
      values_;  // moving a vector leaves its elements where they are
  std::vector<xd_option> options_;
  std::vector<const xd_option*> pointers_;
};

// The result of a run, or what the plugin did not give back, whether the run failed or not.
template <class T>
Result<T> unless_leaked(const MemoryHost& host, Result<T> result) {
  if (host.allocated == 0 && host.views_out == 0) return result;
  return Error{XD_INTERNAL, cat("leak: ", host.allocated, " bytes and ", host.views_out,
                                " views are still held; ",
                                result ? "the run went well" : result.error().message)};
}

struct OpenWriter {
  const xd_writer_api& api;
  xd_writer* writer = nullptr;
  ~OpenWriter() {
    if (writer) api.close(writer);
  }
};

Result<void> open_and_plan(MemoryHost& host, const xd_plugin_desc& plugin,
                           const manifest::Manifest& model, const OptionValues& given,
                           OpenWriter& writer) {
  host.manifest = model;
  host.plan = {};
  XD_TRY_SET(const auto options, OptionTable::make(plugin, given));
  const std::string bytes = manifest::encode(model);
  XD_TRY(call("open", [&](xd_error* e) {
    return writer.api.open(host.table(), bytes.data(), bytes.size(), options.get(), &writer.writer,
                           e);
  }));
  XD_TRY(call("plan", [&](xd_error* e) {
    return writer.api.plan(writer.writer, reinterpret_cast<xd_plan*>(&host.plan), e);
  }));
  std::set<std::string> paths;
  std::set<uint64_t> told;
  for (const auto& object : host.plan.objects) {
    if (!paths.insert(object->path).second)
      return Error{XD_INTERNAL, cat("plan: two objects are called \"", object->path, "\"")};
    for (const PlanItem& item : object->items) {
      for (const xd_range& need : item.needs) told.insert(need.tensor);
    }
  }
  for (const auto& [path, index] : host.plan.aux) {
    if (!paths.insert(path).second)
      return Error{XD_INTERNAL, cat("plan: two objects are called \"", path, "\"")};
  }
  for (const auto& [tensor, reason] : host.plan.excluded) told.insert(tensor);
  for (uint64_t i = 0; i < model.tensors.size(); ++i) {
    const manifest::Tensor& tensor = model.tensors[i];
    if (tensor.excluded.empty() && !told.contains(i)) {
      return Error{XD_INTERNAL,
                   cat("plan: tensor \"", tensor.name, "\" is neither used nor excluded")};
    }
  }
  return {};
}

Result<std::string> write_item(const OpenWriter& writer, PlanObject& object, uint32_t o,
                               uint64_t i) {
  const PlanItem& item = object.items[i];
  item_watch = {&item, 0, 0};
  std::string result;
  const Result<void> done = call("write_item", [&](xd_error* e) {
    return writer.api.write_item(writer.writer, o, i, reinterpret_cast<xd_object*>(&object),
                                 sink(result), e);
  });
  const ItemWatch used = std::exchange(item_watch, {});
  XD_TRY(done);
  if (used.peak > static_cast<int64_t>(item.memory)) {
    return Error{XD_INTERNAL, cat("\"", object.path, "\" item ", i, ": declared ", item.memory,
                                  " bytes of memory, allocated ", used.peak)};
  }
  if (used.held != 0)
    return Error{XD_INTERNAL,
                 cat("\"", object.path, "\" item ", i, ": leak of ", used.held, " bytes")};
  return result;
}

// Every item of every object, over host.threads threads: results[object][item].
Result<std::vector<std::vector<std::string>>> write_items(MemoryHost& host,
                                                          const OpenWriter& writer) {
  auto& objects = host.plan.objects;
  std::vector<std::vector<std::string>> results(objects.size());
  std::vector<std::pair<uint32_t, uint64_t>> work;
  for (uint32_t o = 0; o < objects.size(); ++o) {
    results[o].resize(objects[o]->items.size());
    for (uint64_t i = 0; i < results[o].size(); ++i) work.emplace_back(o, i);
  }
  std::vector<Result<void>> errors(host.threads);
  std::atomic<size_t> next = 0;
  std::atomic<bool> stop = false;
  const auto run = [&](unsigned thread) {
    for (size_t w; !stop && (w = next++) < work.size();) {
      const auto [o, i] = work[w];
      auto result = write_item(writer, *objects[o], o, i);
      if (result) {
        results[o][i] = *std::move(result);
      } else {
        errors[thread] = std::move(result).error();
        stop = true;
      }
    }
  };
  std::vector<std::thread> others;
  for (unsigned t = 1; t < host.threads; ++t) others.emplace_back(run, t);
  run(0);
  for (std::thread& t : others) t.join();
  for (auto& error : errors) XD_TRY(std::move(error));
  return results;
}

Result<Files> write_all(MemoryHost& host, const OpenWriter& writer) {
  XD_TRY_SET(const auto results, write_items(host, writer));
  Files files;
  for (uint32_t o = 0; o < host.plan.objects.size(); ++o) {
    PlanObject& object = *host.plan.objects[o];
    std::vector<xd_view> views;
    for (const std::string& result : results[o])
      views.push_back({XD_INIT_SIZE(xd_view), 0, result.data(), result.size(), nullptr, nullptr});
    std::vector<const xd_view*> pointers;
    for (const xd_view& view : views) pointers.push_back(&view);
    pointers.push_back(nullptr);
    XD_TRY(call("seal", [&](xd_error* e) {
      return writer.api.seal(writer.writer, o, reinterpret_cast<xd_object*>(&object),
                             pointers.data(), e);
    }));
    if (!object.complete())
      return Error{XD_INTERNAL,
                   cat("\"", object.path, "\" is sealed, but not every byte of it was written")};
    files[object.path] = object.data;
  }
  for (const auto& [path, index] : host.plan.aux) {
    const manifest::AuxFile& aux = host.manifest.aux_files[index];
    const auto* bytes = std::get_if<manifest::Bytes>(&aux.content);
    const auto* source = std::get_if<std::string>(&aux.content);
    if (source && !host.inputs.contains(*source))
      return Error{XD_NOT_FOUND, cat("auxiliary file: no input \"", *source, "\"")};
    files[path] = bytes ? bytes->data : source ? host.inputs.at(*source) : std::string();
  }
  XD_TRY(call("commit", [&](xd_error* e) { return writer.api.commit(writer.writer, e); }));
  return files;
}

}  // namespace

int probe(const MemoryHost& host, const xd_plugin_desc& plugin) {
  return plugin.reader->probe(host.table(), host.input());
}

int probe_names(const std::vector<std::string>& names) {
  MemoryHost host;
  for (const std::string& name : names) host.inputs[name] = "";
  return probe(host, linked_plugin(host));
}

int probe_file(const std::string& name, const std::string& bytes) {
  MemoryHost host;
  host.inputs[name] = bytes;
  host.named = name;
  return probe(host, linked_plugin(host));
}

Result<std::unique_ptr<OpenReader>> run_reader(MemoryHost& host, const xd_plugin_desc& plugin,
                                               const OptionValues& given) {
  const auto run = [&]() -> Result<std::unique_ptr<OpenReader>> {
    XD_TRY_SET(const auto options, OptionTable::make(plugin, given));
    xd_reader* reader = nullptr;
    XD_TRY(call("open", [&](xd_error* e) {
      return plugin.reader->open(host.table(), host.input(), options.get(), &reader, e);
    }));
    auto out = std::make_unique<OpenReader>(*plugin.reader, reader);
    std::string bytes;
    XD_TRY(call("manifest",
                [&](xd_error* e) { return plugin.reader->manifest(reader, sink(bytes), e); }));
    XD_TRY_SET(out->manifest, manifest::decode<manifest::Manifest>(as_bytes(bytes)));
    return out;
  };
  auto result = run();
  if (result) return result;
  return unless_leaked(host, std::move(result));
}

Result<std::string> OpenReader::read(const xd_range& range, uint64_t dst_size) const {
  // A block of exactly this size, so that a sanitizer sees one byte too many.
  const std::unique_ptr<char[]> dst(new char[dst_size]);
  XD_TRY(call("read",
              [&](xd_error* e) { return api_.read(reader_, &range, dst.get(), dst_size, e); }));
  return std::string(dst.get(), dst_size);
}

Result<std::string> OpenReader::read(uint64_t tensor) const {
  const manifest::Tensor& t = manifest.tensors.at(tensor);
  const uint64_t n = checked_product(t.shape).value();
  if (t.strides.empty())
    return read(dense_range(tensor, 0, n), manifest::dense_bytes(t.dtype, n).value());
  // The host's part: picks the values out of the storage, one at a time.
  XD_TRY_SET(const std::string storage,
             read(dense_range(tensor, 0, t.storage_elements),
                  manifest::dense_bytes(t.dtype, t.storage_elements).value()));
  const uint64_t size = manifest::info(t.dtype).bits / 8;
  std::string out;
  for (uint64_t i = 0; i < n; ++i) {
    uint64_t at = t.storage_offset, rest = i;
    for (size_t d = t.shape.size(); d-- > 0; rest /= t.shape[d])
      at += rest % t.shape[d] * static_cast<uint64_t>(t.strides[d]);
    out += storage.substr(at * size, size);
  }
  return out;
}

Result<Files> run_writer(MemoryHost& host, const xd_plugin_desc& plugin,
                         const manifest::Manifest& model, const OptionValues& given) {
  const auto run = [&]() -> Result<Files> {
    OpenWriter writer{*plugin.writer};
    XD_TRY(open_and_plan(host, plugin, model, given, writer));
    return write_all(host, writer);
  };
  return unless_leaked(host, run());
}

Result<void> run_plan(MemoryHost& host, const xd_plugin_desc& plugin,
                      const manifest::Manifest& model, const OptionValues& given) {
  const auto run = [&]() -> Result<void> {
    OpenWriter writer{*plugin.writer};
    return open_and_plan(host, plugin, model, given, writer);
  };
  return unless_leaked(host, run());
}

}  // namespace crossdock::test
