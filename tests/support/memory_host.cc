#include "tests/support/memory_host.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace crossdock::test {

using manifest::DType;

namespace {

std::string& slot(xd_error* err) {
  static thread_local std::string ignored;
  return err ? *reinterpret_cast<std::string*>(err) : ignored;
}

xd_status error(xd_error* err, xd_status code, std::string text) {
  slot(err) = std::move(text);
  return code;
}

MemoryHost& self(void* ctx) { return *static_cast<MemoryHost*>(ctx); }
Plan& plan_of(xd_plan* p) { return *reinterpret_cast<Plan*>(p); }
PlanObject& object_of(xd_object* o) { return *reinterpret_cast<PlanObject*>(o); }

uint64_t size_of(const MemoryHost& host, const std::string& name) {
  const auto fixed = host.input_sizes.find(name);
  return fixed != host.input_sizes.end() ? fixed->second : host.inputs.at(name).size();
}

float half_to_float(uint16_t h) {
  const int exponent = h >> 10 & 31;
  const int mantissa = h & 1023;
  const float sign = h >> 15 ? -1.0f : 1.0f;
  if (exponent == 31)
    return mantissa ? std::bit_cast<float>(uint32_t{h >> 15 & 1u} << 31 | 0x7f800000u |
                                           uint32_t(mantissa) << 13)
                    : sign * INFINITY;
  return sign * (exponent ? std::ldexp(float(1024 + mantissa), exponent - 25)
                          : std::ldexp(float(mantissa), -24));
}

// To 16 bits of which so many are the mantissa's, to nearest even.
uint16_t narrow(float value, int mantissa_bits) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const int bias = (1 << (14 - mantissa_bits)) - 1;
  const uint32_t infinity = (2u * static_cast<uint32_t>(bias) + 1) << mantissa_bits;
  if (std::isnan(value)) return static_cast<uint16_t>(sign | infinity | 1u << (mantissa_bits - 1));
  if (std::isinf(value)) return static_cast<uint16_t>(sign | infinity);
  const float magnitude = std::abs(value);
  const int exponent = magnitude == 0 ? 1 - bias : std::max(std::ilogb(magnitude), 1 - bias);
  const auto scaled =
      static_cast<uint32_t>(std::nearbyint(std::ldexp(magnitude, mantissa_bits - exponent)));
  // Without its leading one, which adds one to the exponent; a subnormal has none.
  const uint32_t bits = (static_cast<uint32_t>(exponent + bias - 1) << mantissa_bits) + scaled;
  return static_cast<uint16_t>(sign | std::min(bits, infinity));
}

// Marks [begin, end) of the object as written; false when part of it was already.
bool mark(PlanObject& object, uint64_t begin, uint64_t end) {
  if (begin == end) return true;
  auto after = object.written.lower_bound(begin);
  if (after != object.written.end() && after->first < end) return false;
  if (after != object.written.begin()) {
    const auto before = std::prev(after);
    if (before->second > begin) return false;
    if (before->second == begin) {
      begin = before->first;
      object.written.erase(before);
    }
  }
  if (after != object.written.end() && after->first == end) {
    end = after->second;
    object.written.erase(after);
  }
  object.written[begin] = end;
  return true;
}

bool inside_needs(const PlanItem& item, const xd_range& range) {
  return std::any_of(item.needs.begin(), item.needs.end(), [&](const xd_range& need) {
    return need.tensor == range.tensor && need.form == range.form && need.dtype == range.dtype &&
           range.begin >= need.begin && range.count <= need.count &&
           range.begin - need.begin <= need.count - range.count;
  });
}

}  // namespace

bool MemoryHost::fault() {
  const std::lock_guard lock(mutex_);
  return ++calls == fail_at;
}

bool MemoryHost::logged(std::string_view part) const {
  return std::any_of(logs.begin(), logs.end(),
                     [&](const auto& line) { return line.second.find(part) != std::string::npos; });
}

// The functions of the host's table.
struct Calls {
  static const void* get_extension(void*, const char*) { return nullptr; }

  static xd_status fail(void*, xd_error* err, xd_status code, const char* where,
                        const char* message) {
    std::string& text = slot(err);
    if (message) text = message;
    if (where) text.insert(0, text.empty() ? std::string(where) : std::string(where) + ": ");
    return code;
  }

  static void log(void* ctx, int32_t level, const char* message) {
    const std::lock_guard lock(self(ctx).mutex_);
    self(ctx).logs.emplace_back(level, message);
  }

  static int32_t cancelled(void* ctx) { return self(ctx).cancel; }

  static void progress(void* ctx, uint64_t bytes) {
    const std::lock_guard lock(self(ctx).mutex_);
    self(ctx).progress_bytes += bytes;
  }

  static uint64_t piece_bytes(void* ctx) { return self(ctx).piece; }

  // New memory is filled with a pattern, so that a plugin that counts on zeros fails its test.
  static void* alloc(void* ctx, uint64_t size, uint64_t align) {
    MemoryHost& host = self(ctx);
    if (host.fault()) return nullptr;
    const std::lock_guard lock(host.mutex_);
    if (size > host.budget || host.allocated > host.budget - size) return nullptr;
    void* p = std::aligned_alloc(align, round_up(std::max<uint64_t>(size, 1), align));
    if (!p) return nullptr;
    std::memset(p, 0xa5, size);
    host.blocks_[p] = size;
    host.allocated += size;
    host.peak_allocated = std::max(host.peak_allocated, host.allocated);
    item_watch.held += static_cast<int64_t>(size);
    item_watch.peak = std::max(item_watch.peak, item_watch.held);
    return p;
  }

  static void dealloc(void* ctx, void* p) {
    MemoryHost& host = self(ctx);
    if (!p) return;
    const std::lock_guard lock(host.mutex_);
    const auto block = host.blocks_.find(p);
    if (block == host.blocks_.end()) std::abort();  // not ours, or freed twice
    host.allocated -= block->second;
    item_watch.held -= static_cast<int64_t>(block->second);
    host.blocks_.erase(block);
    std::free(p);
  }

  static uint64_t input_count(void* ctx, const xd_input*) { return self(ctx).inputs.size(); }
  static const char* input_name(void* ctx, const xd_input*, uint64_t i) {
    return at(ctx, i).c_str();
  }
  static uint64_t input_size(void* ctx, const xd_input*, uint64_t i) {
    return size_of(self(ctx), at(ctx, i));
  }
  static const char* input_named(void* ctx, const xd_input*) {
    return self(ctx).named.empty() ? nullptr : self(ctx).named.c_str();
  }
  static const std::string& at(void* ctx, uint64_t i) {
    return std::next(self(ctx).inputs.begin(), static_cast<int64_t>(i))->first;
  }

  static xd_status source_open(void* ctx, const xd_input*, const char* name, xd_source** out,
                               xd_error* err) {
    MemoryHost& host = self(ctx);
    if (host.fault()) return error(err, XD_IO, cat("open \"", name, "\": injected fault"));
    if (!host.inputs.contains(name))
      return error(err, XD_NOT_FOUND, cat("expected an input \"", name, "\", found none"));
    const std::lock_guard lock(host.mutex_);
    ++host.opened[name];
    host.sources_.push_back(
        std::make_unique<MemoryHost::OpenSource>(MemoryHost::OpenSource{&host, name}));
    *out = reinterpret_cast<xd_source*>(host.sources_.back().get());
    return XD_OK;
  }

  static uint64_t source_size(void*, const xd_source* s) {
    const auto& source = *reinterpret_cast<const MemoryHost::OpenSource*>(s);
    return size_of(*source.host, source.name);
  }

  static xd_status source_read(void* ctx, const xd_source* s, uint64_t off, void* dst, uint64_t n,
                               xd_error* err) {
    MemoryHost& host = self(ctx);
    const std::string& name = reinterpret_cast<const MemoryHost::OpenSource*>(s)->name;
    if (host.fault()) return error(err, XD_IO, cat("read \"", name, "\": injected fault"));
    const uint64_t size = size_of(host, name);
    if (off > size || n > size - off) {
      return error(err, XD_IO,
                   cat("read ", n, " bytes at ", off, " of \"", name, "\": it has only ", size));
    }
    const std::string& text = host.inputs.at(name);
    const uint64_t here = off < text.size() ? std::min<uint64_t>(n, text.size() - off) : 0;
    if (here > 0) std::memcpy(dst, text.data() + off, here);
    if (n > here) std::memset(static_cast<char*>(dst) + here, 0, n - here);
    const std::lock_guard lock(host.mutex_);
    ++host.reads;
    host.bytes_read += n;
    return XD_OK;
  }

  static xd_status bytes_append(void* ctx, xd_bytes* b, const void* data, uint64_t n,
                                xd_error* err) {
    if (self(ctx).fault()) return error(err, XD_IO, "bytes_append: injected fault");
    reinterpret_cast<std::string*>(b)->append(static_cast<const char*>(data), n);
    return XD_OK;
  }

  static xd_status plan_object(void* ctx, xd_plan* p, const char* path, uint64_t size,
                               uint32_t* object, xd_error* err) {
    if (self(ctx).fault()) return error(err, XD_IO, "plan_object: injected fault");
    Plan& plan = plan_of(p);
    *object = static_cast<uint32_t>(plan.objects.size());
    plan.objects.push_back(std::make_unique<PlanObject>());
    plan.objects.back()->path = path;
    plan.objects.back()->size = size;
    return XD_OK;
  }

  static xd_status plan_item(void* ctx, xd_plan* p, uint32_t object, const xd_range* const* needs,
                             uint64_t out_bytes, uint64_t memory, xd_error* err) {
    MemoryHost& host = self(ctx);
    if (host.fault()) return error(err, XD_IO, "plan_item: injected fault");
    if (object >= plan_of(p).objects.size())
      return error(err, XD_INVALID_ARGUMENT, cat("plan_item: no object ", object));
    PlanItem item{{}, out_bytes, memory};
    for (; *needs; ++needs) {
      if ((*needs)->tensor >= host.manifest.tensors.size())
        return error(err, XD_INVALID_ARGUMENT, cat("plan_item: no tensor ", (*needs)->tensor));
      item.needs.push_back(**needs);
    }
    plan_of(p).objects[object]->items.push_back(std::move(item));
    return XD_OK;
  }

  static xd_status plan_aux(void* ctx, xd_plan* p, const char* path, uint64_t aux, xd_error* err) {
    MemoryHost& host = self(ctx);
    if (host.fault()) return error(err, XD_IO, "plan_aux: injected fault");
    if (aux >= host.manifest.aux_files.size())
      return error(err, XD_INVALID_ARGUMENT, cat("plan_aux: no auxiliary file ", aux));
    plan_of(p).aux.emplace_back(path, aux);
    return XD_OK;
  }

  static xd_status plan_exclude(void* ctx, xd_plan* p, uint64_t tensor, const char* reason,
                                xd_error* err) {
    MemoryHost& host = self(ctx);
    if (host.fault()) return error(err, XD_IO, "plan_exclude: injected fault");
    if (tensor >= host.manifest.tensors.size())
      return error(err, XD_INVALID_ARGUMENT, cat("plan_exclude: no tensor ", tensor));
    plan_of(p).excluded.emplace_back(tensor, reason);
    return XD_OK;
  }

  static xd_status plan_note(void* ctx, xd_plan* p, const char* text, xd_error* err) {
    if (self(ctx).fault()) return error(err, XD_IO, "plan_note: injected fault");
    plan_of(p).notes.emplace_back(text);
    return XD_OK;
  }

  // The stored bytes of a range, as the manifest types them.
  static xd_status stored(MemoryHost& host, const xd_range& r, std::string& out, xd_error* err) {
    if (r.tensor >= host.manifest.tensors.size())
      return error(err, XD_INVALID_ARGUMENT, cat("no tensor ", r.tensor));
    if (item_watch.item && !inside_needs(*item_watch.item, r)) {
      return error(err, XD_INVALID_ARGUMENT,
                   cat("tensor ", r.tensor, ": elements ", r.begin, " + ", r.count,
                       " are not among the item's needs"));
    }
    const manifest::Tensor& tensor = host.manifest.tensors[r.tensor];
    const uint64_t bits = r.form == XD_FORM_STORED ? 8 : manifest::info(tensor.dtype).bits;
    const uint64_t total =
        checked_product(tensor.shape).value_or(0) * manifest::info(tensor.dtype).bits / bits;
    if (r.begin > total || r.count > total - r.begin) {
      return error(err, XD_OUT_OF_RANGE,
                   cat("tensor ", r.tensor, ": elements ", r.begin, " + ", r.count, " of ", total));
    }
    out.resize(r.count * bits / 8);
    const uint64_t first = r.begin * bits / 8;
    if (host.tensor_bytes) {
      host.tensor_bytes(r.tensor, first, {reinterpret_cast<std::byte*>(out.data()), out.size()});
      return XD_OK;
    }
    if (r.tensor >= host.tensors.size() || host.tensors[r.tensor].size() != total * bits / 8) {
      return error(err, XD_INTERNAL,
                   cat("the test gave no bytes, or too few, for tensor ", r.tensor));
    }
    out = host.tensors[r.tensor].substr(first, out.size());
    return XD_OK;
  }

  static xd_status dense(MemoryHost& host, const xd_range& r, std::string& out, xd_error* err) {
    std::string raw;
    if (const xd_status status = stored(host, r, raw, err); status != XD_OK) return status;
    const DType from = host.manifest.tensors[r.tensor].dtype;
    const auto to = static_cast<DType>(r.dtype);
    if (to == DType::UNSPECIFIED || to == from || r.form == XD_FORM_STORED) {
      out = std::move(raw);
      return XD_OK;
    }
    if (to != DType::F32 && to != DType::F16 && to != DType::BF16)
      return error(err, XD_UNSUPPORTED_DATA,
                   cat("the memory host casts to no ", manifest::name(to)));
    Cursor in(as_bytes(raw));
    for (uint64_t i = 0; i < r.count; ++i) {
      float value = 0;
      switch (from) {
        case DType::BF16:
          value = std::bit_cast<float>(uint32_t{in.le<uint16_t>()} << 16);
          break;
        case DType::F16:
          value = half_to_float(in.le<uint16_t>());
          break;
        case DType::F32:
          value = in.le<float>();
          break;
        case DType::F64:
          value = static_cast<float>(in.le<double>());
          break;
        default:
          return error(err, XD_UNSUPPORTED_DATA,
                       cat("the memory host casts no ", manifest::name(from)));
      }
      if (to == DType::F32) put_le(out, std::bit_cast<uint32_t>(value));
      if (to == DType::F16) put_le(out, narrow(value, 10));
      if (to == DType::BF16) put_le(out, narrow(value, 7));
    }
    return XD_OK;
  }

  static xd_status tensor_view(void* ctx, const xd_range* r, xd_view* out, xd_error* err) {
    MemoryHost& host = self(ctx);
    if (host.fault()) return error(err, XD_IO, "tensor_view: injected fault");
    const auto& list = host.manifest.tensors;
    const bool casts = r->form == XD_FORM_DENSE && r->dtype != 0 && r->tensor < list.size() &&
                       r->dtype != static_cast<uint32_t>(list[r->tensor].dtype);
    if (!host.offer_views || casts) return error(err, XD_UNIMPLEMENTED, "no view of this tensor");
    struct Owner {
      MemoryHost* host;
      std::string bytes;
    };
    auto owner = std::make_unique<Owner>(Owner{&host, {}});
    if (const xd_status status = dense(host, *r, owner->bytes, err); status != XD_OK) return status;
    *out = {XD_INIT_SIZE(xd_view),
            0,
            owner->bytes.data(),
            owner->bytes.size(),
            [](void* p) {
              const std::unique_ptr<Owner> mine(static_cast<Owner*>(p));
              const std::lock_guard lock(mine->host->mutex_);
              --mine->host->views_out;
            },
            owner.get()};
    owner.release();
    const std::lock_guard lock(host.mutex_);
    ++host.views_out;
    return XD_OK;
  }

  static xd_status tensor_read(void* ctx, const xd_range* r, void* dst, uint64_t dst_size,
                               xd_error* err) {
    MemoryHost& host = self(ctx);
    if (host.fault()) return error(err, XD_IO, "tensor_read: injected fault");
    std::string bytes;
    if (const xd_status status = dense(host, *r, bytes, err); status != XD_OK) return status;
    if (bytes.size() != dst_size) {
      return error(
          err, XD_INVALID_ARGUMENT,
          cat("tensor ", r->tensor, ": a buffer of ", dst_size, " bytes for ", bytes.size()));
    }
    if (dst_size > 0) std::memcpy(dst, bytes.data(), dst_size);
    return XD_OK;
  }

  // The range of an object, once; makes its bytes.
  static xd_status claim(MemoryHost& host, PlanObject& object, uint64_t off, uint64_t n,
                         xd_error* err) {
    const std::lock_guard lock(host.mutex_);
    if (off > object.size || n > object.size - off) {
      return error(err, XD_OUT_OF_RANGE,
                   cat("write ", n, " bytes at ", off, " of \"", object.path, "\": it has only ",
                       object.size));
    }
    if (!mark(object, off, off + n)) {
      return error(err, XD_INVALID_ARGUMENT,
                   cat("write ", n, " bytes at ", off, " of \"", object.path,
                       "\": some were already written"));
    }
    if (object.data.empty()) object.data.resize(object.size);
    return XD_OK;
  }

  static xd_status object_write(void* ctx, xd_object* o, uint64_t off, const void* data, uint64_t n,
                                xd_error* err) {
    MemoryHost& host = self(ctx);
    if (host.fault()) return error(err, XD_IO, "object_write: injected fault");
    PlanObject& object = object_of(o);
    if (const xd_status status = claim(host, object, off, n, err); status != XD_OK) return status;
    if (n > 0) std::memcpy(object.data.data() + off, data, n);
    progress(ctx, n);
    return XD_OK;
  }

  static xd_status object_zero(void* ctx, xd_object* o, uint64_t off, uint64_t n, xd_error* err) {
    MemoryHost& host = self(ctx);
    if (host.fault()) return error(err, XD_IO, "object_zero: injected fault");
    if (const xd_status status = claim(host, object_of(o), off, n, err); status != XD_OK)
      return status;
    const std::lock_guard lock(host.mutex_);
    object_of(o).hole_bytes += n;
    return XD_OK;
  }
};

MemoryHost::MemoryHost()
    : table_{XD_INIT_SIZE(xd_host), XD_ABI_MINOR,        this,
             Calls::get_extension,  Calls::fail,         Calls::log,
             Calls::cancelled,      Calls::progress,     Calls::piece_bytes,
             Calls::alloc,          Calls::dealloc,      Calls::input_count,
             Calls::input_name,     Calls::input_size,   Calls::source_open,
             Calls::source_size,    Calls::source_read,  Calls::bytes_append,
             Calls::plan_object,    Calls::plan_item,    Calls::plan_aux,
             Calls::plan_exclude,   Calls::plan_note,    Calls::tensor_view,
             Calls::tensor_read,    Calls::object_write, Calls::object_zero,
             Calls::input_named} {}

MemoryHost::~MemoryHost() {
  if (blocks_.empty() && views_out == 0) return;
  std::fprintf(stderr, "leak: the plugin still holds %zu blocks of memory and %llu views\n",
               blocks_.size(), static_cast<unsigned long long>(views_out));
  std::abort();
}

}  // namespace crossdock::test
