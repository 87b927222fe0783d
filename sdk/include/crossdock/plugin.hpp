// SPDX-License-Identifier: Apache-2.0

// The C++ veneer over plugin.h: derive from Reader or Writer, and the C tables are made for you.
//
//   class MyReader : public crossdock::Reader {
//    public:
//     static int probe(const Host& host, const Input& input);
//     static Result<std::unique_ptr<Reader>> open(const Host&, const Input&, const Options&);
//     Result<manifest::Manifest> manifest(const Host& host) override;
//     Result<void> read(const Host&, const xd_range&, std::span<std::byte> out) override;
//     ReadHint read_hint(const Host&, uint64_t tensor) override;  // may be left out
//   };
//   XD_EXPORT_PLUGINS(crossdock::reader_plugin<MyReader>({.id = "org.example.reader.mine", ...}))
//
// A Host is one call of the plugin: pass on the one you were given and do not keep it. Handles
// (Source, Input) may be kept; the host closes them after the reader. Threads: as plugin.h tags
// them; a plugin's own threads may use a Host until the call returns.
#pragma once

#include <crossdock/extensions.h>
#include <crossdock/plugin.h>
#include <crossdock/manifest_wire.hpp>
#include <crossdock/result.hpp>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <exception>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace crossdock {

class Host {
 public:
  explicit Host(xd_call* call) : call_(call) {}

  // For the functions of plugin.h: table().log(call(), ...).
  xd_call* call() const { return call_; }
  const xd_host& table() const { return *call_->host; }

  Result<void> check(xd_status status) const {
    if (status == XD_OK) return {};
    return Error{status, {}, /*held_by_host=*/true};
  }
  bool cancelled() const { return table().cancelled(call_) != 0; }
  uint64_t piece_bytes() const { return table().piece_bytes(call_); }
  void progress(uint64_t bytes) const { table().progress(call_, bytes); }
  void log(int32_t level, const std::string& text) const {
    table().log(call_, level, text.c_str());
  }
  // An optional feature of extensions.h, or nullptr.
  template <class T>
  const T* extension(const char* id) const {
    return static_cast<const T*>(table().get_extension(call_, id));
  }

 private:
  xd_call* call_;
};

// An aligned buffer from the host's memory budget, given back before the call returns.
class Buffer {
 public:
  static Result<Buffer> make(const Host& host, uint64_t size) {
    void* data = host.table().alloc(host.call(), size, 64);
    if (!data)
      return Error{XD_NO_MEMORY,
                   cat("expected ", size,
                       " bytes within the memory budget, which is used up: raise --memory")};
    return Buffer(host, data, size);
  }
  Buffer(Buffer&& other) noexcept
      : host_(other.host_), data_(std::exchange(other.data_, nullptr)), size_(other.size_) {}
  Buffer& operator=(Buffer&&) = delete;
  ~Buffer() {
    if (data_) host_.table().dealloc(host_.call(), data_);
  }
  std::span<std::byte> span() const { return {static_cast<std::byte*>(data_), size_}; }

 private:
  Buffer(const Host& host, void* data, uint64_t size) : host_(host), data_(data), size_(size) {}
  Host host_;
  void* data_;
  uint64_t size_;
};

class Source {
 public:
  explicit Source(xd_source* handle) : handle_(handle) {}
  uint64_t size(const Host& host) const {
    return is_window_ ? size_ : host.table().source_size(host.call(), handle_);
  }
  Result<void> read(const Host& host, uint64_t offset, std::span<std::byte> out) const {
    XD_TRY(check_inside(offset, out.size()));
    return host.check(
        host.table().source_read(host.call(), handle_, begin_ + offset, out.data(), out.size()));
  }
  // Bytes [offset, offset + size) of it, as a source that begins at 0: of a file in a file. They
  // lie inside it.
  Source window(uint64_t offset, uint64_t size) const {
    Source out(handle_);
    out.is_window_ = true;
    out.begin_ = begin_ + offset;
    out.size_ = size;
    return out;
  }

  // For read_many().
  Result<xd_source_range> range(uint64_t offset, std::span<std::byte> out) const {
    XD_TRY(check_inside(offset, out.size()));
    return xd_source_range{
        XD_INIT_SIZE(xd_source_range), 0, handle_, begin_ + offset, out.data(), out.size()};
  }

 private:
  Result<void> check_inside(uint64_t offset, uint64_t n) const {
    if (!is_window_ || (offset <= size_ && n <= size_ - offset)) return {};
    return Error{XD_OUT_OF_RANGE,
                 cat("expected a range inside ", size_, " bytes, found ", n, " at ", offset)};
  }

  xd_source* handle_;
  bool is_window_ = false;
  uint64_t begin_ = 0, size_ = 0;  // of a window
};

// A read that does not depend on the others: on a slow disk the host does them at once.
struct SourceRead {
  Source source;
  uint64_t offset;
  std::span<std::byte> out;
};
inline Result<void> read_many(const Host& host, std::span<const SourceRead> reads) {
  const auto* many = host.extension<xd_read_many>(XD_EXT_READ_MANY);
  std::vector<xd_source_range> ranges;
  for (const SourceRead& r : reads) {
    if (many) {
      XD_TRY_SET(const xd_source_range range, r.source.range(r.offset, r.out));
      ranges.push_back(range);
    } else {
      XD_TRY(r.source.read(host, r.offset, r.out));
    }
  }
  if (!many) return {};
  std::vector<const xd_source_range*> list;
  for (const xd_source_range& range : ranges) list.push_back(&range);
  list.push_back(nullptr);
  return host.check(many->read(host.call(), list.data()));
}

class Input {
 public:
  explicit Input(const xd_input* handle) : handle_(handle) {}
  uint64_t count(const Host& host) const { return host.table().input_count(host.call(), handle_); }
  std::string name(const Host& host, uint64_t i) const { return entry(host, i).name; }
  uint64_t size(const Host& host, uint64_t i) const { return entry(host, i).size; }
  std::vector<std::string> names(const Host& host) const {
    std::vector<std::string> out;
    for (uint64_t i = 0, n = count(host); i < n; ++i) out.push_back(name(host, i));
    return out;
  }
  // The file that the user named as SRC; empty when SRC is a folder.
  std::string named(const Host& host) const {
    const char* name = host.table().input_named(host.call(), handle_);
    return name ? name : "";
  }
  Result<Source> open(const Host& host, const std::string& name) const {
    xd_source* source = nullptr;
    XD_TRY(host.check(host.table().source_open(host.call(), handle_, name.c_str(), &source)));
    return Source(source);
  }

 private:
  xd_input_entry entry(const Host& host, uint64_t i) const {
    xd_input_entry out{XD_INIT_SIZE(xd_input_entry), 0, "", 0};
    host.table().input_entry(host.call(), handle_, i, &out);
    return out;
  }

  const xd_input* handle_;
};

// The plugin's options as the host checked them: every one of the schema is there, unless it is an
// empty list.
class Options {
 public:
  explicit Options(const xd_option* const* options) {
    for (; options && *options; ++options) values_[(*options)->key].push_back((*options)->value);
  }
  std::string text(const std::string& key) const {
    const auto it = values_.find(key);
    return it == values_.end() || it->second.empty() ? std::string() : it->second.back();
  }
  bool flag(const std::string& key) const { return text(key) == "true"; }
  uint64_t number(const std::string& key) const {
    return std::strtoull(text(key).c_str(), nullptr, 10);
  }
  std::vector<std::string> list(const std::string& key) const {
    const auto it = values_.find(key);
    return it == values_.end() ? std::vector<std::string>() : it->second;
  }

 private:
  std::map<std::string, std::vector<std::string>> values_;
};

// What reading a tensor costs (extensions.h).
struct ReadHint {
  uint64_t scratch = 0;  // the most bytes of Buffers that one read() of it holds
  bool is_sequential = false;
};

class Reader {
 public:
  virtual ~Reader() = default;
  virtual Result<manifest::Manifest> manifest(const Host& host) = 0;  // [serial]
  virtual Result<void> read(const Host& host, const xd_range& range,
                            std::span<std::byte> out) = 0;                     // [any]
  virtual ReadHint read_hint(const Host&, uint64_t /*tensor*/) { return {}; }  // [any]
};

// What a writer says in plan(): see plugin.h.
class Plan {
 public:
  Plan(const Host& host, xd_plan* plan) : host_(host), plan_(plan) {}

  // `flags`: XD_OBJECT_...
  Result<uint32_t> object(const std::string& path, uint64_t size, uint32_t flags = 0) {
    uint32_t id = 0;
    const xd_object_desc desc{XD_INIT_SIZE(xd_object_desc), flags, path.c_str(), size};
    XD_TRY(host_.check(host_.table().plan_object(host_.call(), plan_, &desc, &id)));
    return id;
  }
  Result<void> item(uint32_t object, std::span<const xd_range> needs, uint64_t out_bytes,
                    uint64_t memory) {
    std::vector<const xd_range*> list;
    for (const xd_range& range : needs) list.push_back(&range);
    list.push_back(nullptr);
    const xd_item_desc desc{XD_INIT_SIZE(xd_item_desc), object, list.data(), out_bytes, memory};
    return host_.check(host_.table().plan_item(host_.call(), plan_, &desc));
  }
  Result<void> aux(const std::string& path, uint64_t index) {
    return host_.check(host_.table().plan_aux(host_.call(), plan_, path.c_str(), index));
  }
  Result<void> exclude(uint64_t tensor, const std::string& reason) {
    return host_.check(host_.table().plan_exclude(host_.call(), plan_, tensor, reason.c_str()));
  }
  Result<void> note(const std::string& text) {
    return host_.check(host_.table().plan_note(host_.call(), plan_, text.c_str()));
  }

 private:
  const Host& host_;
  xd_plan* plan_;
};

// One staged output object, while an item of it is written or it is sealed.
class Object {
 public:
  Object(const Host& host, xd_object* object) : host_(host), object_(object) {}

  Result<void> write(uint64_t offset, std::span<const std::byte> bytes) {
    return host_.check(
        host_.table().object_write(host_.call(), object_, offset, bytes.data(), bytes.size()));
  }
  Result<void> zero(uint64_t offset, uint64_t n) {
    return host_.check(host_.table().object_zero(host_.call(), object_, offset, n));
  }
  // Where the last byte ends that was written so far.
  uint64_t size() const { return host_.table().object_size(host_.call(), object_); }
  // In seal() only.
  Result<void> read(uint64_t offset, std::span<std::byte> out) {
    return host_.check(
        host_.table().object_read(host_.call(), object_, offset, out.data(), out.size()));
  }

 private:
  const Host& host_;
  xd_object* object_;
};

inline xd_range dense_range(uint64_t tensor, uint64_t begin, uint64_t count,
                            manifest::DType dtype = manifest::DType::UNSPECIFIED) {
  return {XD_INIT_SIZE(xd_range), static_cast<uint32_t>(dtype), tensor, begin, count};
}

inline Result<void> read_tensor(const Host& host, const xd_range& range, std::span<std::byte> out) {
  return host.check(host.table().tensor_read(host.call(), &range, out.data(), out.size()));
}

class Writer {
 public:
  virtual ~Writer() = default;
  virtual Result<void> plan(const Host& host, Plan& out) = 0;  // [serial]
  // Gives the item's result, which seal() receives.
  virtual Result<std::string> write_item(const Host& host, uint32_t object, uint64_t item,
                                         Object& out) = 0;  // [any]
  virtual Result<void> seal(const Host& host, uint32_t object, Object& out,
                            std::span<const std::string_view> results) = 0;  // [any]
  virtual Result<void> commit(const Host&) { return {}; }                    // [serial]
};

// Runs a call of the plugin: its Error, or whatever it throws, becomes a status and a message of
// the host.
template <class Call>
xd_status guard(const Host& host, Call&& call) noexcept {
  const auto fail = [&host](xd_status code, const char* place, const char* message) {
    const xd_failure failure{XD_INIT_SIZE(xd_failure), code, place, message};
    return host.table().fail(host.call(), &failure);
  };
  try {
    const Result<void> result = call();
    if (result) return XD_OK;
    Error e = result.error();
    // A name of a file may hold anything; a C text ends with its first NUL.
    std::replace(e.message.begin(), e.message.end(), '\0', '?');
    const char* text = e.message.empty() ? nullptr : e.message.c_str();
    return e.held_by_host ? fail(e.code, text, nullptr)
                          : fail(e.code, nullptr, text ? text : "failed");
  } catch (const std::bad_alloc&) {
    return fail(XD_NO_MEMORY, nullptr, "out of memory");
  } catch (const std::exception& e) {
    return fail(XD_INTERNAL, "plugin", e.what());
  } catch (...) {
    return fail(XD_INTERNAL, "plugin", "unknown exception");
  }
}

namespace detail {

template <class T>
struct Handle {  // what xd_reader and xd_writer point to
  std::unique_ptr<T> impl;
};
template <class T, class Opaque>
T& handle(Opaque* p) {
  return *reinterpret_cast<Handle<T>*>(p)->impl;
}

inline Result<void> append(const Host& host, xd_bytes* out, std::string_view bytes) {
  return host.check(host.table().bytes_append(host.call(), out, bytes.data(), bytes.size()));
}

template <class R>
struct ReaderCalls {
  static int32_t probe(xd_call* c, const xd_input* in) noexcept {
    try {
      return R::probe(Host(c), Input(in));
    } catch (...) {
      return 0;
    }
  }
  static xd_status open(xd_call* c, const xd_reader_open* args, xd_reader** out) noexcept {
    const Host host(c);
    return guard(host, [&]() -> Result<void> {
      XD_TRY_SET(auto reader, R::open(host, Input(args->input), Options(args->options)));
      *out = reinterpret_cast<xd_reader*>(new Handle<Reader>{std::move(reader)});
      return {};
    });
  }
  static xd_status manifest(xd_call* c, xd_reader* r, xd_bytes* out) noexcept {
    const Host host(c);
    return guard(host, [&]() -> Result<void> {
      XD_TRY_SET(const auto manifest, handle<Reader>(r).manifest(host));
      return append(host, out, manifest::encode(manifest));
    });
  }
  static xd_status read(xd_call* c, xd_reader* r, const xd_range* range, void* dst,
                        uint64_t size) noexcept {
    const Host host(c);
    return guard(host, [&] {
      return handle<Reader>(r).read(host, *range, {static_cast<std::byte*>(dst), size});
    });
  }
  static void close(xd_call*, xd_reader* r) noexcept {
    delete reinterpret_cast<Handle<Reader>*>(r);
  }

  static xd_status read_hint(xd_call* c, xd_reader* r, uint64_t tensor,
                             xd_read_hint* out) noexcept {
    const Host host(c);
    return guard(host, [&]() -> Result<void> {
      const ReadHint hint = handle<Reader>(r).read_hint(host, tensor);
      out->scratch = hint.scratch;
      out->access = hint.is_sequential ? XD_ACCESS_SEQUENTIAL : XD_ACCESS_ANY;
      return {};
    });
  }
  static const void* get_extension(const char* id) noexcept {
    static constexpr xd_read_hints kHints{XD_INIT_SIZE(xd_read_hints), 0, read_hint};
    return std::string_view(id) == XD_EXT_READ_HINTS ? &kHints : nullptr;
  }
};

template <class W>
struct WriterCalls {
  static xd_status open(xd_call* c, const xd_writer_open* args, xd_writer** out) noexcept {
    const Host host(c);
    return guard(host, [&]() -> Result<void> {
      XD_TRY_SET(auto model,
                 manifest::decode<manifest::Manifest>(
                     {static_cast<const std::byte*>(args->manifest), args->manifest_size}));
      XD_TRY_SET(auto writer, W::open(host, std::move(model), Options(args->options)));
      *out = reinterpret_cast<xd_writer*>(new Handle<Writer>{std::move(writer)});
      return {};
    });
  }
  static xd_status plan(xd_call* c, xd_writer* w, xd_plan* plan) noexcept {
    const Host host(c);
    return guard(host, [&] {
      Plan out(host, plan);
      return handle<Writer>(w).plan(host, out);
    });
  }
  static xd_status write_item(xd_call* c, xd_writer* w, const xd_item* item) noexcept {
    const Host host(c);
    return guard(host, [&]() -> Result<void> {
      Object out(host, item->out);
      XD_TRY_SET(const std::string bytes,
                 handle<Writer>(w).write_item(host, item->object, item->item, out));
      return append(host, item->result, bytes);
    });
  }
  static xd_status seal(xd_call* c, xd_writer* w, const xd_seal* seal) noexcept {
    const Host host(c);
    return guard(host, [&] {
      Object out(host, seal->out);
      std::vector<std::string_view> results;
      for (const xd_view* const* r = seal->results; *r; ++r)
        results.emplace_back(static_cast<const char*>((*r)->data), (*r)->size);
      return handle<Writer>(w).seal(host, seal->object, out, results);
    });
  }
  static xd_status commit(xd_call* c, xd_writer* w) noexcept {
    const Host host(c);
    return guard(host, [&] { return handle<Writer>(w).commit(host); });
  }
  static void close(xd_call*, xd_writer* w) noexcept {
    delete reinterpret_cast<Handle<Writer>*>(w);
  }
};

}  // namespace detail

// The C tables. Besides Reader's methods a reader class has
//   static int probe(const Host&, const Input&);
//   static Result<std::unique_ptr<Reader>> open(const Host&, const Input&, const Options&);
// and besides Writer's a writer class
//   static Result<std::unique_ptr<Writer>> open(const Host&, manifest::Manifest, const Options&);
template <class R>
inline constexpr xd_reader_api kReaderApi{
    XD_INIT_SIZE(xd_reader_api),      0,
    detail::ReaderCalls<R>::probe,    detail::ReaderCalls<R>::open,
    detail::ReaderCalls<R>::manifest, detail::ReaderCalls<R>::read,
    detail::ReaderCalls<R>::close};
template <class W>
inline constexpr xd_writer_api kWriterApi{
    XD_INIT_SIZE(xd_writer_api),        0,
    detail::WriterCalls<W>::open,       detail::WriterCalls<W>::plan,
    detail::WriterCalls<W>::write_item, detail::WriterCalls<W>::seal,
    detail::WriterCalls<W>::commit,     detail::WriterCalls<W>::close};

// Who a plugin is: plugin.h tells what each means. Lists end in nullptr; nullptr: there are none.
struct PluginInfo {
  const char* id;
  const char* version;
  const char* summary;
  uint64_t caps = XD_CAP_CONCURRENT;
  const char* const* formats;
  const char* const* patterns = nullptr;
  const xd_option_desc* const* options = nullptr;
};

template <class R>
constexpr xd_plugin_desc reader_plugin(const PluginInfo& p) {
  return {XD_INIT_SIZE(xd_plugin_desc),
          XD_READER,
          p.caps,
          p.id,
          p.version,
          p.summary,
          p.formats,
          p.patterns,
          p.options,
          &kReaderApi<R>,
          nullptr,
          detail::ReaderCalls<R>::get_extension};
}
template <class W>
constexpr xd_plugin_desc writer_plugin(const PluginInfo& p) {
  return {XD_INIT_SIZE(xd_plugin_desc),
          XD_WRITER,
          p.caps,
          p.id,
          p.version,
          p.summary,
          p.formats,
          p.patterns,
          p.options,
          nullptr,
          &kWriterApi<W>,
          nullptr};
}

}  // namespace crossdock

// The library's one symbol, with these plugins: reader_plugin<R>({...}), writer_plugin<W>({...}).
#define XD_EXPORT_PLUGINS(...)                                                       \
  extern "C" XD_EXPORT xd_status xd_plugin_v1(xd_call*, const xd_library** out) {    \
    static constexpr xd_plugin_desc kPlugins[] = {__VA_ARGS__};                      \
    static constexpr auto kList = [] {                                               \
      std::array<const xd_plugin_desc*, std::size(kPlugins) + 1> list{};             \
      for (size_t i = 0; i < std::size(kPlugins); ++i) list[i] = &kPlugins[i];       \
      return list;                                                                   \
    }();                                                                             \
    static constexpr xd_library kLibrary{XD_INIT_SIZE(xd_library), 0, kList.data()}; \
    *out = &kLibrary;                                                                \
    return XD_OK;                                                                    \
  }
