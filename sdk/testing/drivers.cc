// SPDX-License-Identifier: Apache-2.0

// The drivers of memory_host.h: they run a plugin as the real host does, and check what it did.
#include <crossdock/testing/memory_host.h>

#include <algorithm>
#include <atomic>
#include <thread>

namespace crossdock::test {

namespace {

using Call = MemoryHost::Call;

// One call of the plugin.
template <class Body>
Result<void> call(Call& c, const char* name, Body&& body) {
  const xd_status status = body(&c);
  if (status == XD_OK && c.has_failed)
    return Error{XD_INTERNAL,
                 cat(name, "() called fail(), and said that all was well: ", c.message)};
  if (status == XD_OK) return {};
  if (status == XD_CANCELLED && !c.host.cancel)
    return Error{XD_INTERNAL, cat(name, "() gave XD_CANCELLED, and nobody has cancelled")};
  if (c.message.empty() && status == XD_CANCELLED) return Error{status, "cancelled"};
  if (c.message.empty())
    return Error{XD_INTERNAL,
                 cat("the plugin's ", name, "() failed with ", status, " and no message")};
  return Error{status, c.message};
}
template <class Body>
Result<void> call(MemoryHost& host, const char* name, Body&& body) {
  Call c(host);
  return call(c, name, body);
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
  if (host.allocated == 0) return result;
  return Error{XD_INTERNAL, cat("leak: ", host.allocated, " bytes are still held; ",
                                result ? "the run went well" : result.error().message)};
}

struct OpenWriter {
  MemoryHost& host;
  const xd_writer_api& api;
  xd_writer* writer = nullptr;
  ~OpenWriter() {
    Call c(host);
    if (writer) api.close(&c, writer);
  }
};

Result<void> open_and_plan(MemoryHost& host, const xd_plugin_desc& plugin,
                           const manifest::Manifest& model, const OptionValues& given,
                           OpenWriter& writer) {
  host.manifest = model;
  host.plan = {};
  XD_TRY_SET(const auto options, OptionTable::make(plugin, given));
  const std::string bytes = manifest::encode(model);
  const xd_writer_open args{XD_INIT_SIZE(xd_writer_open), 0, bytes.data(), bytes.size(),
                            options.get()};
  XD_TRY(call(host, "open", [&](xd_call* c) { return writer.api.open(c, &args, &writer.writer); }));
  if (!writer.writer) return Error{XD_INTERNAL, "open() said that it opened, and gave nothing"};
  XD_TRY(call(host, "plan", [&](xd_call* c) {
    return writer.api.plan(c, writer.writer, reinterpret_cast<xd_plan*>(&host.plan));
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

// Every element that the item needs was read.
Result<void> check_whole(const PlanItem& item,
                         std::vector<std::pair<uint64_t, std::pair<uint64_t, uint64_t>>> read) {
  std::sort(read.begin(), read.end());
  for (const xd_range& need : item.needs) {
    uint64_t at = need.begin;
    for (const auto& [tensor, range] : read) {
      if (tensor == need.tensor && range.first <= at) at = std::max(at, range.second);
    }
    if (at < need.begin + need.count)
      return Error{XD_INTERNAL, cat("tensor ", need.tensor, ": the plan needs element ", at,
                                    ", which was not read")};
  }
  return {};
}

Result<std::string> write_item(const OpenWriter& writer, PlanObject& object, uint32_t o,
                               uint64_t i) {
  const PlanItem& item = object.items[i];
  Call c(writer.host, &item);
  std::string result;
  const xd_item args{XD_INIT_SIZE(xd_item), o, i, reinterpret_cast<xd_object*>(&object),
                     sink(result)};
  XD_TRY(call(c, "write_item",
              [&](xd_call* e) { return writer.api.write_item(e, writer.writer, &args); }));
  if (result.size() > XD_MAX_RESULT_BYTES)
    return Error{XD_INTERNAL, cat("\"", object.path, "\" item ", i, ": a result of ", result.size(),
                                  " bytes, more than ", XD_MAX_RESULT_BYTES)};
  XD_TRY(c.check_memory(object.path, i));
  XD_TRY(check_whole(item, std::move(c.read)));
  return result;
}

// The item once more, as after a kill: it must say the same.
Result<std::string> repeat_item(const OpenWriter& writer, const PlanObject& object, uint32_t o,
                                uint64_t i, const std::string& first) {
  if (object.flags & XD_OBJECT_IN_ORDER) return first;
  PlanObject scratch;
  scratch.path = object.path;
  scratch.size = object.size;
  scratch.flags = object.flags;
  scratch.items = object.items;
  XD_TRY_SET(const std::string again, write_item(writer, scratch, o, i));
  if (again != first)
    return Error{XD_INTERNAL, cat("\"", object.path, "\" item ", i,
                                  ": another result when it is "
                                  "written a second time")};
  for (const auto& [begin, end] : scratch.written) {
    const auto it = object.written.upper_bound(begin);
    const bool was_written = it != object.written.begin() && std::prev(it)->second >= end;
    if (!was_written ||
        object.data.compare(begin, end - begin, scratch.data, begin, end - begin) != 0)
      return Error{XD_INTERNAL, cat("\"", object.path, "\" item ", i,
                                    ": other bytes when it is "
                                    "written a second time")};
  }
  return again;
}

// Every item of every object, over host.threads threads: results[object][item].
Result<std::vector<std::vector<std::string>>> write_items(MemoryHost& host,
                                                          const OpenWriter& writer) {
  auto& objects = host.plan.objects;
  std::vector<std::vector<std::string>> results(objects.size());
  // Items that run one after the other.
  std::vector<std::vector<std::pair<uint32_t, uint64_t>>> work;
  for (uint32_t o = 0; o < objects.size(); ++o) {
    results[o].resize(objects[o]->items.size());
    for (uint64_t i = 0; i < results[o].size(); ++i) {
      if (i == 0 || (objects[o]->flags & XD_OBJECT_IN_ORDER) == 0) work.emplace_back();
      work.back().emplace_back(o, i);
    }
  }
  if (host.backwards) std::reverse(work.begin(), work.end());
  if (host.before_items) host.before_items();
  std::vector<Result<void>> errors(host.threads);
  std::atomic<size_t> next = 0;
  std::atomic<bool> stop = false;
  const auto run = [&](unsigned thread) {
    for (size_t w; !stop && (w = next++) < work.size();) {
      for (const auto& [o, i] : work[w]) {
        auto result = write_item(writer, *objects[o], o, i);
        if (result && host.repeats_items) result = repeat_item(writer, *objects[o], o, i, *result);
        if (result) {
          results[o][i] = *std::move(result);
          continue;
        }
        errors[thread] = std::move(result).error();
        stop = true;
        break;
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
      views.push_back({XD_INIT_SIZE(xd_view), XD_MEMORY_CPU, result.data(), result.size()});
    std::vector<const xd_view*> pointers;
    for (const xd_view& view : views) pointers.push_back(&view);
    pointers.push_back(nullptr);
    Call c(host, nullptr, /*is_sealing=*/true);
    const xd_seal args{XD_INIT_SIZE(xd_seal), o, reinterpret_cast<xd_object*>(&object),
                       pointers.data()};
    XD_TRY(call(c, "seal", [&](xd_call* e) { return writer.api.seal(e, writer.writer, &args); }));
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
  XD_TRY(call(host, "commit", [&](xd_call* c) { return writer.api.commit(c, writer.writer); }));
  return files;
}

}  // namespace

int probe(MemoryHost& host, const xd_plugin_desc& plugin) {
  Call c(host);
  return plugin.reader->probe(&c, host.input());
}

Result<std::unique_ptr<OpenReader>> run_reader(MemoryHost& host, const xd_plugin_desc& plugin,
                                               const OptionValues& given) {
  const auto run = [&]() -> Result<std::unique_ptr<OpenReader>> {
    XD_TRY_SET(const auto options, OptionTable::make(plugin, given));
    xd_reader* reader = nullptr;
    const xd_reader_open args{XD_INIT_SIZE(xd_reader_open), 0, host.input(), options.get()};
    XD_TRY(call(host, "open", [&](xd_call* c) { return plugin.reader->open(c, &args, &reader); }));
    if (!reader) return Error{XD_INTERNAL, "open() said that it opened, and gave nothing"};
    auto out = std::make_unique<OpenReader>(host, plugin, reader);
    XD_TRY(call(host, "manifest", [&](xd_call* c) {
      return plugin.reader->manifest(c, reader, sink(out->manifest_bytes));
    }));
    XD_TRY_SET(out->manifest, manifest::decode<manifest::Manifest>(as_bytes(out->manifest_bytes)));
    return out;
  };
  auto result = run();
  if (result) return result;
  return unless_leaked(host, std::move(result));
}

OpenReader::~OpenReader() {
  Call c(host_);
  plugin_.reader->close(&c, reader_);
}

Result<std::string> OpenReader::read(const xd_range& range, uint64_t dst_size) const {
  // A block of exactly this size, so that a sanitizer sees one byte too many.
  // What is in it changes from read to read, so that a reader that fills nothing gives nonsense.
  static std::atomic<unsigned char> filling{0x5a};
  const std::unique_ptr<char[]> dst(new char[dst_size]);
  std::fill_n(dst.get(), dst_size, static_cast<char>(filling += 37));
  XD_TRY(call(host_, "read", [&](xd_call* c) {
    return plugin_.reader->read(c, reader_, &range, dst.get(), dst_size);
  }));
  return std::string(dst.get(), dst_size);
}

Result<ReadHint> OpenReader::hint(uint64_t tensor) const {
  const auto* hints =
      plugin_.get_extension
          ? static_cast<const xd_read_hints*>(plugin_.get_extension(XD_EXT_READ_HINTS))
          : nullptr;
  if (!hints) return ReadHint{};
  xd_read_hint out{XD_INIT_SIZE(xd_read_hint), 0, 0};
  XD_TRY(call(host_, "read_hints",
              [&](xd_call* c) { return hints->tensor(c, reader_, tensor, &out); }));
  return ReadHint{out.scratch, out.access == XD_ACCESS_SEQUENTIAL};
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
    OpenWriter writer{host, *plugin.writer};
    XD_TRY(open_and_plan(host, plugin, model, given, writer));
    return write_all(host, writer);
  };
  return unless_leaked(host, run());
}

Result<void> run_plan(MemoryHost& host, const xd_plugin_desc& plugin,
                      const manifest::Manifest& model, const OptionValues& given) {
  const auto run = [&]() -> Result<void> {
    OpenWriter writer{host, *plugin.writer};
    return open_and_plan(host, plugin, model, given, writer);
  };
  return unless_leaked(host, run());
}

}  // namespace crossdock::test
