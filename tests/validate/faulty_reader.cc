// SPDX-License-Identifier: Apache-2.0
#include <chrono>
#include <thread>

#include "tests/validate/faulty.h"

namespace faulty {

namespace {

constexpr uint64_t kLeast = 12, kMostHead = 1 << 16, kSum = 8;

// The one .flt file of the input, or nothing.
std::string file_of(const Host& host, const Input& input) {
  std::string found;
  for (const std::string& name : input.names(host)) {
    if (!name.ends_with(".flt")) continue;
    if (!found.empty()) return "";
    found = name;
  }
  return found;
}

}  // namespace

int Reader::probe(const Host& host, const Input& input) {
  if (is("probe-101")) return 101;
  if (is("probe-negative")) return -5;
  if (is("probe-random")) return static_cast<int>(random_number() % 101);
  if (is("probe-hang")) hang();
  if (is("probe-exit")) std::exit(0);
  if (is("probe-memory")) (void)host.table().alloc(host.call(), 64, 64);
  const std::string name = file_of(host, input);
  if (is("probe-crash") && name.empty()) crash();
  if (name.empty()) return 0;
  auto source = input.open(host, name);
  char magic[4] = {};
  if (!source) return is("probe-fault-crash") ? (crash(), 0) : 0;
  if (!source->read(host, 0, std::as_writable_bytes(std::span(magic)))) return 0;
  const bool is_own = std::memcmp(magic, "FLT1", 4) == 0;
  return is_own && !is("probe-blind") ? 90 : 0;
}

Result<std::unique_ptr<crossdock::Reader>> Reader::open(const Host& host, const Input& input,
                                                        const Options&) {
  if (is("open-throws")) throw std::runtime_error("boom");
  if (is("open-hang")) hang();
  if (is("open-recursion")) (void)recurse(0);
  if (is("open-io")) do_io();
  if (is("open-exit")) std::exit(0);
  if (is("open-abort")) std::abort();
  const std::string name = file_of(host, input);
  if (name.empty()) return invalid("expected one .flt file, found none or several");
  XD_TRY_SET(const Source source, input.open(host, name));
  const uint64_t size = source.size(host);
  std::string head(std::min(size, kMostHead), '\0');
  if (size < kLeast) return corrupt("expected a head of 12 bytes, found fewer").in(name);
  XD_TRY(source.read(host, 0, std::as_writable_bytes(std::span(head))));
  if (!head.starts_with("FLT1")) return corrupt("expected FLT1, found another").in(name);
  Cursor in(as_bytes(head));
  in.take(4);
  const auto n = in.le<uint64_t>();
  std::vector<Stored> tensors;
  uint64_t bytes = 0;
  for (uint64_t i = 0; i < n && !in.failed(); ++i) {
    Stored t{std::string(as_text(in.take(in.le<uint64_t>()))), in.le<uint64_t>(), bytes};
    if (is("flip-crash") && t.n_elems > 1'000'000) crash();
    const auto length = checked_mul(t.n_elems, 4);
    const auto sum = length ? checked_add(bytes, *length) : std::nullopt;
    if (!sum || in.failed()) return corrupt("expected sizes that fit, found others").in(name);
    bytes = *sum;
    tensors.push_back(std::move(t));
  }
  const uint64_t begin = head.size() - in.left();
  const auto wanted = checked_add(bytes, begin + kSum * n);
  if (in.failed() || n > kMostHead || !wanted || (*wanted != size && !is("truncated-zeros")))
    return corrupt(cat("expected ", bytes, " bytes of values, found a file of ", size)).in(name);
  for (Stored& t : tensors) t.offset += begin;
  if (is("open-memory")) (void)host.table().alloc(host.call(), 64, 64);
  return std::unique_ptr<crossdock::Reader>(new Reader(source, name, std::move(tensors)));
}

Result<manifest::Manifest> Reader::manifest(const Host& host) {
  if (is("manifest-hang")) hang();
  manifest::Manifest m;
  m.source.format = "flt";
  const uint64_t size = source_.size(host);
  m.source.files.push_back({is("file-unknown") ? "other.flt" : name_, size + is("file-size"), ""});
  for (const Stored& stored : tensors_) {
    manifest::Tensor& t = m.tensors.emplace_back();
    t.name = is("names-twice") ? "a" : stored.name;
    if (is("name-utf8")) t.name += "\xff";
    t.dtype = is("dtype-unknown") ? static_cast<manifest::DType>(77) : manifest::DType::F32;
    t.shape = {stored.n_elems};
    if (is("shape-overflow")) t.shape = {UINT64_MAX, 3};
    uint64_t at = stored.offset, length = 4 * stored.n_elems;
    if (is("truncated-zeros")) {
      at = std::min(at, size);
      length = std::min(length, size - at);
      t.encoding = "padded";
    }
    t.extents.push_back(
        {is("extent-file") ? 7u : 0u, at + (is("extent-beyond") ? size : 0), length});
  }
  if (is("alias-shapes")) m.alias_groups.push_back({{0, 1}});
  if (is("alias-index")) m.alias_groups.push_back({{0, 9}});
  if (is("expression")) m.tensors[0].expression = "b";
  if (is("schema-new")) m.schema_version = 99;
  if (is("manifest-changes")) m.source.metadata.push_back({"n", manifest::Value{random_number()}});
  return m;
}

Result<void> Reader::read(const Host& host, const xd_range& range, std::span<std::byte> out) {
  if (is("read-hang")) hang();
  if (is("read-io")) do_io();
  if (is("read-crash")) crash();
  if (is("read-throws")) throw std::bad_alloc();
  if (range.tensor >= tensors_.size() && !is("tensor-any"))
    return Error{XD_OUT_OF_RANGE, "expected a tensor of the file, found a higher number"};
  const Stored& t = tensors_[std::min<uint64_t>(range.tensor, tensors_.size() - 1)];
  const uint64_t n = t.n_elems;
  const bool is_inside = range.begin <= n && range.count <= n - range.begin;
  if (!is_inside && is("range-zeros")) return {};
  if (!is_inside && is("range-crash")) crash();
  if (!is_inside) return Error{XD_OUT_OF_RANGE, "expected elements inside the tensor"};
  if (out.size() != 4 * range.count && is("buffer-any")) return {};
  if (out.size() != 4 * range.count) return invalid("expected a buffer for the range");
  if (host.cancelled()) {
    if (is("cancel-code")) return Error{XD_IO, "interrupted"};
    return Error{XD_CANCELLED, "cancelled"};
  }
  if (is("read-nothing")) return {};
  if (is("read-half")) out = out.first(out.size() / 2);
  if (is("thread-left")) std::thread(hang).detach();
  if (is("read-leak")) (void)host.table().alloc(host.call(), 64, 64);
  const uint64_t scratch = is("read-hungry") ? 1 << 20 : 64;
  XD_TRY_SET(const Buffer buffer, Buffer::make(host, scratch));
  if (is("read-twice-freed")) host.table().dealloc(host.call(), buffer.span().data());
  const uint64_t begin = is("range-shifted") && range.begin > 0 ? range.begin - 1 : range.begin;
  const uint64_t at = t.offset + 4 * begin;
  if (is("truncated-zeros")) {
    const uint64_t size = source_.size(host);
    const uint64_t there = at < size ? std::min<uint64_t>(out.size(), size - at) : 0;
    std::fill(out.begin(), out.end(), std::byte{});
    return source_.read(host, at, out.first(there));
  }
  if (is("read-race")) {
    static std::vector<std::byte> shared;
    shared.assign(out.size(), std::byte{});
    XD_TRY(source_.read(host, at, shared));
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    if (shared.size() == out.size()) std::copy(shared.begin(), shared.end(), out.begin());
    return {};
  }
  auto done = source_.read(host, at, out);
  if (!done && (is("fault-ignored") || is("failed-and-well"))) return {};
  if (!done && is("fault-leak")) (void)host.table().alloc(host.call(), 64, 64);
  return done;
}

xd_reader_api reader_table_of() {
  xd_reader_api table = kReaderApi<Reader>;
  if (is("open-nothing"))
    table.open = [](xd_call*, const xd_reader_open*, xd_reader**) -> xd_status { return XD_OK; };
  if (is("open-silent"))
    table.open = [](xd_call*, const xd_reader_open*, xd_reader**) -> xd_status { return XD_IO; };
  if (is("open-status"))
    table.open = [](xd_call*, const xd_reader_open*, xd_reader**) -> xd_status { return 4711; };
  if (is("open-throws-int"))
    table.open = [](xd_call*, const xd_reader_open*, xd_reader**) -> xd_status { throw 42; };
  if (is("probe-throws")) table.probe = [](xd_call*, const xd_input*) -> int32_t { throw 42; };
  if (is("manifest-garbage"))
    table.manifest = [](xd_call* c, xd_reader*, xd_bytes* out) {
      return c->host->bytes_append(c, out, "\xff\xff\xff", 3);
    };
  if (is("manifest-nothing"))
    table.manifest = [](xd_call*, xd_reader*, xd_bytes*) -> xd_status { return XD_OK; };
  if (is("manifest-endless"))
    table.manifest = [](xd_call* c, xd_reader*, xd_bytes* out) -> xd_status {
      const std::string piece(1 << 20, '\0');
      for (;;) {
        const xd_status status = c->host->bytes_append(c, out, piece.data(), piece.size());
        if (status != XD_OK) return status;
      }
    };
  if (is("message-endless"))
    table.open = [](xd_call* c, const xd_reader_open*, xd_reader**) -> xd_status {
      static const std::string text(50 << 20, 'x');
      const xd_failure failure{XD_INIT_SIZE(xd_failure), XD_CORRUPT, nullptr, text.c_str()};
      return c->host->fail(c, &failure);
    };
  if (is("message-utf8"))
    table.open = [](xd_call* c, const xd_reader_open*, xd_reader**) -> xd_status {
      const xd_failure failure{XD_INIT_SIZE(xd_failure), XD_CORRUPT, nullptr, "a \x1b[2J \xff b"};
      return c->host->fail(c, &failure);
    };
  return table;
}

}  // namespace faulty
