// The C++ veneer over plugin.h: derive from Reader or Writer, and the C tables are made for you.
//
//   class MyReader : public crossdock::Reader {
//    public:
//     static int probe(const Host& host, const Input& input);
//     static Result<std::unique_ptr<Reader>> open(const Host& host, const Input& input, const
//     Options& options); Result<manifest::Manifest> manifest(const Host& host) override;
//     Result<void> read(const Host& host, const xd_range& range, std::span<std::byte> out)
//     override;
//   };
//   static constexpr xd_reader_api kApi = crossdock::reader_api<MyReader>();
//
// A Host is one call's view of the host: it carries the call's error slot, so pass on the one you
// were given and do not keep it. Handles (Source, Input) may be kept; the host closes them after
// the reader. Threads: as plugin.h tags them.
#pragma once

#include <crossdock/plugin.h>
#include <crossdock/manifest_wire.hpp>
#include <crossdock/result.hpp>

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
  Host(const xd_host* host, xd_error* err) : host_(host), err_(err) {}

  const xd_host* table() const { return host_; }
  xd_error* slot() const { return err_; }

  Result<void> check(xd_status status) const {
    if (status == XD_OK) return {};
    return Error{status, {}, /*held_by_host=*/true};
  }
  bool cancelled() const { return host_->cancelled(host_->ctx) != 0; }
  uint64_t piece_bytes() const { return host_->piece_bytes(host_->ctx); }
  void log(int32_t level, const std::string& text) const {
    host_->log(host_->ctx, level, text.c_str());
  }

 private:
  const xd_host* host_;
  xd_error* err_;
};

// An aligned buffer from the host's memory budget.
class Buffer {
 public:
  static Result<Buffer> make(const Host& host, uint64_t size) {
    void* data = host.table()->alloc(host.table()->ctx, size, 64);
    if (!data)
      return Error{XD_NO_MEMORY,
                   cat("expected ", size,
                       " bytes within the memory budget, which is used up: raise --memory")};
    return Buffer(host.table(), data, size);
  }
  Buffer(Buffer&& other) noexcept
      : host_(other.host_), data_(std::exchange(other.data_, nullptr)), size_(other.size_) {}
  Buffer& operator=(Buffer&&) = delete;
  ~Buffer() {
    if (data_) host_->dealloc(host_->ctx, data_);
  }
  std::span<std::byte> span() const { return {static_cast<std::byte*>(data_), size_}; }

 private:
  Buffer(const xd_host* host, void* data, uint64_t size) : host_(host), data_(data), size_(size) {}
  const xd_host* host_;
  void* data_;
  uint64_t size_;
};

class Source {
 public:
  explicit Source(xd_source* handle) : handle_(handle) {}
  uint64_t size(const Host& host) const {
    return is_window_ ? size_ : host.table()->source_size(host.table()->ctx, handle_);
  }
  Result<void> read(const Host& host, uint64_t offset, std::span<std::byte> out) const {
    if (is_window_ && (offset > size_ || out.size() > size_ - offset))
      return Error{XD_OUT_OF_RANGE, cat("expected a range inside ", size_, " bytes, found ",
                                        out.size(), " at ", offset)};
    return host.check(host.table()->source_read(host.table()->ctx, handle_, begin_ + offset,
                                                out.data(), out.size(), host.slot()));
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

 private:
  xd_source* handle_;
  bool is_window_ = false;
  uint64_t begin_ = 0, size_ = 0;  // of a window
};

class Input {
 public:
  explicit Input(const xd_input* handle) : handle_(handle) {}
  uint64_t count(const Host& host) const {
    return host.table()->input_count(host.table()->ctx, handle_);
  }
  std::string name(const Host& host, uint64_t i) const {
    return host.table()->input_name(host.table()->ctx, handle_, i);
  }
  uint64_t size(const Host& host, uint64_t i) const {
    return host.table()->input_size(host.table()->ctx, handle_, i);
  }
  std::vector<std::string> names(const Host& host) const {
    std::vector<std::string> out;
    for (uint64_t i = 0, n = count(host); i < n; ++i) out.push_back(name(host, i));
    return out;
  }
  // The file that the user named as SRC; empty when SRC is a folder.
  std::string named(const Host& host) const {
    if (!XD_HAS(host.table(), xd_host, input_named)) return {};  // an older host
    const char* name = host.table()->input_named(host.table()->ctx, handle_);
    return name ? name : "";
  }
  Result<Source> open(const Host& host, const std::string& name) const {
    xd_source* source = nullptr;
    XD_TRY(host.check(
        host.table()->source_open(host.table()->ctx, handle_, name.c_str(), &source, host.slot())));
    return Source(source);
  }

 private:
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

class Reader {
 public:
  virtual ~Reader() = default;
  virtual Result<manifest::Manifest> manifest(const Host& host) = 0;  // [serial]
  virtual Result<void> read(const Host& host, const xd_range& range,
                            std::span<std::byte> out) = 0;  // [any]
};

// What a writer says in plan(): see plugin.h.
class Plan {
 public:
  Plan(const Host& host, xd_plan* plan) : host_(host), plan_(plan) {}

  Result<uint32_t> object(const std::string& path, uint64_t size) {
    uint32_t id = 0;
    XD_TRY(host_.check(host_.table()->plan_object(host_.table()->ctx, plan_, path.c_str(), size,
                                                  &id, host_.slot())));
    return id;
  }
  Result<void> item(uint32_t object, std::span<const xd_range> needs, uint64_t out_bytes,
                    uint64_t memory) {
    std::vector<const xd_range*> list;
    for (const xd_range& range : needs) list.push_back(&range);
    list.push_back(nullptr);
    return host_.check(host_.table()->plan_item(host_.table()->ctx, plan_, object, list.data(),
                                                out_bytes, memory, host_.slot()));
  }
  Result<void> aux(const std::string& path, uint64_t index) {
    return host_.check(
        host_.table()->plan_aux(host_.table()->ctx, plan_, path.c_str(), index, host_.slot()));
  }
  Result<void> exclude(uint64_t tensor, const std::string& reason) {
    return host_.check(host_.table()->plan_exclude(host_.table()->ctx, plan_, tensor,
                                                   reason.c_str(), host_.slot()));
  }
  Result<void> note(const std::string& text) {
    return host_.check(
        host_.table()->plan_note(host_.table()->ctx, plan_, text.c_str(), host_.slot()));
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
    return host_.check(host_.table()->object_write(host_.table()->ctx, object_, offset,
                                                   bytes.data(), bytes.size(), host_.slot()));
  }
  Result<void> zero(uint64_t offset, uint64_t n) {
    return host_.check(
        host_.table()->object_zero(host_.table()->ctx, object_, offset, n, host_.slot()));
  }

 private:
  const Host& host_;
  xd_object* object_;
};

inline xd_range dense_range(uint64_t tensor, uint64_t begin, uint64_t count,
                            manifest::DType dtype = manifest::DType::UNSPECIFIED) {
  return {
      XD_INIT_SIZE(xd_range), XD_FORM_DENSE, tensor, begin, count, static_cast<uint32_t>(dtype), 0};
}

inline Result<void> read_tensor(const Host& host, const xd_range& range, std::span<std::byte> out) {
  return host.check(
      host.table()->tensor_read(host.table()->ctx, &range, out.data(), out.size(), host.slot()));
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
  const xd_host* h = host.table();
  try {
    const Result<void> result = call();
    if (result) return XD_OK;
    const Error& e = result.error();
    const char* text = e.message.empty() ? nullptr : e.message.c_str();
    return e.held_by_host ? h->fail(h->ctx, host.slot(), e.code, text, nullptr)
                          : h->fail(h->ctx, host.slot(), e.code, nullptr, text ? text : "failed");
  } catch (const std::bad_alloc&) {
    return h->fail(h->ctx, host.slot(), XD_NO_MEMORY, nullptr, "out of memory");
  } catch (const std::exception& e) {
    return h->fail(h->ctx, host.slot(), XD_INTERNAL, "plugin", e.what());
  } catch (...) {
    return h->fail(h->ctx, host.slot(), XD_INTERNAL, "plugin", "unknown exception");
  }
}

namespace detail {

template <class T>
struct Handle {  // what xd_reader and xd_writer point to
  const xd_host* host;
  std::unique_ptr<T> impl;
};
template <class T, class Opaque>
Handle<T>& handle(Opaque* p) {
  return *reinterpret_cast<Handle<T>*>(p);
}

template <class R>
struct ReaderCalls {
  static int32_t probe(const xd_host* h, const xd_input* in) noexcept {
    try {
      return R::probe(Host(h, nullptr), Input(in));
    } catch (...) {
      return 0;
    }
  }
  static xd_status open(const xd_host* h, const xd_input* in, const xd_option* const* options,
                        xd_reader** out, xd_error* err) noexcept {
    const Host host(h, err);
    return guard(host, [&]() -> Result<void> {
      XD_TRY_SET(auto reader, R::open(host, Input(in), Options(options)));
      *out = reinterpret_cast<xd_reader*>(new Handle<Reader>{h, std::move(reader)});
      return {};
    });
  }
  static xd_status manifest(xd_reader* r, xd_bytes* out, xd_error* err) noexcept {
    auto& self = handle<Reader>(r);
    const Host host(self.host, err);
    return guard(host, [&]() -> Result<void> {
      XD_TRY_SET(const auto manifest, self.impl->manifest(host));
      const std::string bytes = manifest::encode(manifest);
      return host.check(
          self.host->bytes_append(self.host->ctx, out, bytes.data(), bytes.size(), err));
    });
  }
  static xd_status read(xd_reader* r, const xd_range* range, void* dst, uint64_t size,
                        xd_error* err) noexcept {
    auto& self = handle<Reader>(r);
    const Host host(self.host, err);
    return guard(host, [&] {
      return self.impl->read(host, *range, {static_cast<std::byte*>(dst), size});
    });
  }
  static void close(xd_reader* r) noexcept { delete &handle<Reader>(r); }
};

template <class W>
struct WriterCalls {
  static xd_status open(const xd_host* h, const void* bytes, uint64_t size,
                        const xd_option* const* options, xd_writer** out, xd_error* err) noexcept {
    const Host host(h, err);
    return guard(host, [&]() -> Result<void> {
      XD_TRY_SET(auto model, manifest::decode<manifest::Manifest>(
                                 {static_cast<const std::byte*>(bytes), size}));
      XD_TRY_SET(auto writer, W::open(host, std::move(model), Options(options)));
      *out = reinterpret_cast<xd_writer*>(new Handle<Writer>{h, std::move(writer)});
      return {};
    });
  }
  static xd_status plan(xd_writer* w, xd_plan* plan, xd_error* err) noexcept {
    auto& self = handle<Writer>(w);
    const Host host(self.host, err);
    return guard(host, [&] {
      Plan out(host, plan);
      return self.impl->plan(host, out);
    });
  }
  static xd_status write_item(xd_writer* w, uint32_t object, uint64_t item, xd_object* o,
                              xd_bytes* result, xd_error* err) noexcept {
    auto& self = handle<Writer>(w);
    const Host host(self.host, err);
    return guard(host, [&]() -> Result<void> {
      Object out(host, o);
      XD_TRY_SET(const std::string bytes, self.impl->write_item(host, object, item, out));
      return host.check(
          self.host->bytes_append(self.host->ctx, result, bytes.data(), bytes.size(), err));
    });
  }
  static xd_status seal(xd_writer* w, uint32_t object, xd_object* o, const xd_view* const* results,
                        xd_error* err) noexcept {
    auto& self = handle<Writer>(w);
    const Host host(self.host, err);
    return guard(host, [&] {
      Object out(host, o);
      std::vector<std::string_view> list;
      for (; *results; ++results)
        list.emplace_back(static_cast<const char*>((*results)->data), (*results)->size);
      return self.impl->seal(host, object, out, list);
    });
  }
  static xd_status commit(xd_writer* w, xd_error* err) noexcept {
    auto& self = handle<Writer>(w);
    const Host host(self.host, err);
    return guard(host, [&] { return self.impl->commit(host); });
  }
  static void close(xd_writer* w) noexcept { delete &handle<Writer>(w); }
};

}  // namespace detail

// The C table of a reader class. Besides Reader's methods it has
//   static int probe(const Host&, const Input&);   static Result<std::unique_ptr<Reader>>
//   open(const Host&, const Input&, const Options&);
template <class R>
constexpr xd_reader_api reader_api() {
  using C = detail::ReaderCalls<R>;
  return {
      XD_INIT_SIZE(xd_reader_api), 0, C::probe, C::open, C::manifest, C::read, nullptr, C::close};
}

// The C table of a writer class. Besides Writer's methods it has
//   static Result<std::unique_ptr<Writer>> open(const Host&, manifest::Manifest, const Options&);
template <class W>
constexpr xd_writer_api writer_api() {
  using C = detail::WriterCalls<W>;
  return {XD_INIT_SIZE(xd_writer_api),
          0,
          C::open,
          C::plan,
          C::write_item,
          C::seal,
          C::commit,
          C::close};
}

}  // namespace crossdock
