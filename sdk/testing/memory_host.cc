// SPDX-License-Identifier: Apache-2.0
#include <crossdock/testing/memory_host.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace crossdock::test {

using manifest::DType;

namespace {

using Call = MemoryHost::Call;

Call& of(xd_call* c) { return *static_cast<Call*>(c); }
MemoryHost& self(xd_call* c) { return of(c).host; }

xd_status error(xd_call* c, xd_status code, std::string text) {
  of(c).message = std::move(text);
  return code;
}

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
    return need.tensor == range.tensor && need.dtype == range.dtype && range.begin >= need.begin &&
           range.count <= need.count && range.begin - need.begin <= need.count - range.count;
  });
}

}  // namespace

bool MemoryHost::fault() {
  const std::lock_guard lock(mutex_);
  ++calls;
  if (cancel_at != 0 && calls >= cancel_at) cancel = true;
  return calls == fail_at;
}

bool MemoryHost::logged(std::string_view part) const {
  return std::any_of(logs.begin(), logs.end(),
                     [&](const auto& line) { return line.second.find(part) != std::string::npos; });
}

// The functions of the host's table.
struct Calls {
  static xd_status read_many(xd_call* c, const xd_source_range* const* ranges) {
    for (; *ranges; ++ranges) {
      const xd_source_range& r = **ranges;
      const xd_status status = source_read(c, r.source, r.offset, r.dst, r.size);
      if (status != XD_OK) return status;
    }
    return XD_OK;
  }
  static const void* get_extension(xd_call* c, const char* id) {
    static constexpr xd_read_many kReadMany{XD_INIT_SIZE(xd_read_many), 0, read_many};
    return self(c).offer_extensions && std::string_view(id) == XD_EXT_READ_MANY ? &kReadMany
                                                                                : nullptr;
  }

  static xd_status fail(xd_call* c, const xd_failure* failure) {
    const std::lock_guard lock(self(c).mutex_);
    of(c).has_failed = true;
    std::string& text = of(c).message;
    if (failure->message) text = failure->message;
    if (failure->place)
      text.insert(0, text.empty() ? std::string(failure->place) : cat(failure->place, ": "));
    return failure->code;
  }

  static void log(xd_call* c, int32_t level, const char* message) {
    const std::lock_guard lock(self(c).mutex_);
    self(c).logs.emplace_back(level, message);
  }

  static int32_t cancelled(xd_call* c) { return self(c).cancel; }

  static void progress(xd_call* c, uint64_t bytes) {
    const std::lock_guard lock(self(c).mutex_);
    self(c).progress_bytes += bytes;
  }

  static uint64_t piece_bytes(xd_call* c) { return self(c).piece; }

  // New memory is filled with a pattern, so that a plugin that counts on zeros fails its test.
  static void* alloc(xd_call* c, uint64_t size, uint64_t align) {
    MemoryHost& host = self(c);
    if (host.fault()) return nullptr;
    const std::lock_guard lock(host.mutex_);
    if (size > host.budget || host.allocated > host.budget - size) return nullptr;
    void* p = std::aligned_alloc(align, round_up(std::max<uint64_t>(size, 1), align));
    if (!p) return nullptr;
    std::memset(p, 0xa5, size);
    host.blocks_[p] = size;
    host.allocated += size;
    host.peak_allocated = std::max(host.peak_allocated, host.allocated);
    of(c).held += static_cast<int64_t>(size);
    of(c).peak = std::max(of(c).peak, of(c).held);
    return p;
  }

  static void dealloc(xd_call* c, void* p) {
    MemoryHost& host = self(c);
    if (!p) return;
    const std::lock_guard lock(host.mutex_);
    const auto block = host.blocks_.find(p);
    if (block == host.blocks_.end()) {
      std::fprintf(stderr, "the plugin gave back memory that is not its own, or twice\n");
      std::abort();
    }
    host.allocated -= block->second;
    of(c).held -= static_cast<int64_t>(block->second);
    host.blocks_.erase(block);
    std::free(p);
  }

  static uint64_t input_count(xd_call* c, const xd_input*) { return self(c).inputs.size(); }
  static xd_status input_entry(xd_call* c, const xd_input*, uint64_t i, xd_input_entry* out) {
    MemoryHost& host = self(c);
    if (i >= host.inputs.size())
      return error(c, XD_OUT_OF_RANGE, cat("expected an entry below ", host.inputs.size()));
    const std::string& name = std::next(host.inputs.begin(), static_cast<int64_t>(i))->first;
    out->name = name.c_str();
    out->size = size_of(host, name);
    return XD_OK;
  }
  static const char* input_named(xd_call* c, const xd_input*) {
    return self(c).named.empty() ? nullptr : self(c).named.c_str();
  }
  static xd_status source_open(xd_call* c, const xd_input*, const char* name, xd_source** out) {
    MemoryHost& host = self(c);
    if (host.fault()) return error(c, XD_IO, cat("open \"", name, "\": injected fault"));
    if (!host.inputs.contains(name))
      return error(c, XD_NOT_FOUND, cat("expected an input \"", name, "\", found none"));
    const std::lock_guard lock(host.mutex_);
    ++host.opened[name];
    host.sources_.push_back(
        std::make_unique<MemoryHost::OpenSource>(MemoryHost::OpenSource{&host, name}));
    *out = reinterpret_cast<xd_source*>(host.sources_.back().get());
    return XD_OK;
  }

  static uint64_t source_size(xd_call*, const xd_source* s) {
    const auto& source = *reinterpret_cast<const MemoryHost::OpenSource*>(s);
    return size_of(*source.host, source.name);
  }

  static xd_status source_read(xd_call* c, const xd_source* s, uint64_t off, void* dst,
                               uint64_t n) {
    MemoryHost& host = self(c);
    const std::string& name = reinterpret_cast<const MemoryHost::OpenSource*>(s)->name;
    if (host.fault()) return error(c, XD_IO, cat("read \"", name, "\": injected fault"));
    const uint64_t size = size_of(host, name);
    if (off > size || n > size - off) {
      return error(c, XD_IO,
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

  static xd_status bytes_append(xd_call* c, xd_bytes* b, const void* data, uint64_t n) {
    if (self(c).fault()) return error(c, XD_IO, "bytes_append: injected fault");
    if (n > XD_MAX_MANIFEST_BYTES - reinterpret_cast<std::string*>(b)->size())
      return error(c, XD_OUT_OF_RANGE, cat("expected at most ", XD_MAX_MANIFEST_BYTES, " bytes"));
    reinterpret_cast<std::string*>(b)->append(static_cast<const char*>(data), n);
    return XD_OK;
  }

  static xd_status plan_object(xd_call* c, xd_plan* p, const xd_object_desc* desc,
                               uint32_t* object) {
    if (self(c).fault()) return error(c, XD_IO, "plan_object: injected fault");
    if (desc->struct_size < sizeof *desc || !desc->path)
      return error(c, XD_INVALID_ARGUMENT, "plan_object: a description that is too short");
    if ((desc->flags & ~uint32_t{XD_OBJECT_SIZE_AT_SEAL | XD_OBJECT_IN_ORDER}) != 0)
      return error(c, XD_UNIMPLEMENTED, "plan_object: flags that are not known");
    Plan& plan = plan_of(p);
    *object = static_cast<uint32_t>(plan.objects.size());
    plan.objects.push_back(std::make_unique<PlanObject>());
    plan.objects.back()->path = desc->path;
    plan.objects.back()->size = desc->size;
    plan.objects.back()->flags = desc->flags;
    return XD_OK;
  }

  static xd_status plan_item(xd_call* c, xd_plan* p, const xd_item_desc* desc) {
    MemoryHost& host = self(c);
    if (host.fault()) return error(c, XD_IO, "plan_item: injected fault");
    if (desc->object >= plan_of(p).objects.size())
      return error(c, XD_INVALID_ARGUMENT, cat("plan_item: no object ", desc->object));
    if (desc->struct_size < sizeof *desc || !desc->needs)
      return error(c, XD_INVALID_ARGUMENT,
                   "plan_item: a description that is too short, or no needs");
    PlanItem item{{}, desc->out_bytes, desc->memory};
    for (const xd_range* const* need = desc->needs; *need; ++need) {
      if ((*need)->struct_size < sizeof **need)
        return error(c, XD_INVALID_ARGUMENT, "plan_item: a need that is too short");
      if ((*need)->tensor >= host.manifest.tensors.size())
        return error(c, XD_INVALID_ARGUMENT, cat("plan_item: no tensor ", (*need)->tensor));
      item.needs.push_back(**need);
    }
    plan_of(p).objects[desc->object]->items.push_back(std::move(item));
    return XD_OK;
  }

  static xd_status plan_aux(xd_call* c, xd_plan* p, const char* path, uint64_t aux) {
    MemoryHost& host = self(c);
    if (host.fault()) return error(c, XD_IO, "plan_aux: injected fault");
    if (aux >= host.manifest.aux_files.size())
      return error(c, XD_INVALID_ARGUMENT, cat("plan_aux: no auxiliary file ", aux));
    plan_of(p).aux.emplace_back(path, aux);
    return XD_OK;
  }

  static xd_status plan_exclude(xd_call* c, xd_plan* p, uint64_t tensor, const char* reason) {
    MemoryHost& host = self(c);
    if (host.fault()) return error(c, XD_IO, "plan_exclude: injected fault");
    if (tensor >= host.manifest.tensors.size())
      return error(c, XD_INVALID_ARGUMENT, cat("plan_exclude: no tensor ", tensor));
    plan_of(p).excluded.emplace_back(tensor, reason);
    return XD_OK;
  }

  static xd_status plan_note(xd_call* c, xd_plan* p, const char* text) {
    if (self(c).fault()) return error(c, XD_IO, "plan_note: injected fault");
    plan_of(p).notes.emplace_back(text);
    return XD_OK;
  }

  // The stored bytes of a range, as the manifest types them.
  static xd_status stored(xd_call* c, const xd_range& r, std::string& out) {
    MemoryHost& host = self(c);
    if (r.tensor >= host.manifest.tensors.size())
      return error(c, XD_INVALID_ARGUMENT, cat("no tensor ", r.tensor));
    if (of(c).item && !inside_needs(*of(c).item, r)) {
      return error(c, XD_INVALID_ARGUMENT,
                   cat("tensor ", r.tensor, ": elements ", r.begin, " + ", r.count,
                       " are not among the item's needs"));
    }
    const manifest::Tensor& tensor = host.manifest.tensors[r.tensor];
    const uint64_t bits = manifest::info(tensor.dtype).bits;
    const uint64_t total = checked_product(tensor.shape).value_or(0);
    if (r.begin > total || r.count > total - r.begin) {
      return error(c, XD_OUT_OF_RANGE,
                   cat("tensor ", r.tensor, ": elements ", r.begin, " + ", r.count, " of ", total));
    }
    out.resize(r.count * bits / 8);
    const uint64_t first = r.begin * bits / 8;
    if (host.tensor_bytes) {
      host.tensor_bytes(r.tensor, first, {reinterpret_cast<std::byte*>(out.data()), out.size()});
      return XD_OK;
    }
    if (r.tensor >= host.tensors.size() || host.tensors[r.tensor].size() != total * bits / 8) {
      return error(c, XD_INTERNAL,
                   cat("the test gave no bytes, or too few, for tensor ", r.tensor));
    }
    out = host.tensors[r.tensor].substr(first, out.size());
    return XD_OK;
  }

  static xd_status dense(xd_call* c, const xd_range& r, std::string& out) {
    MemoryHost& host = self(c);
    std::string raw;
    if (const xd_status status = stored(c, r, raw); status != XD_OK) return status;
    const DType from = host.manifest.tensors[r.tensor].dtype;
    const auto to = static_cast<DType>(r.dtype);
    if (to == DType::UNSPECIFIED || to == from) {
      out = std::move(raw);
      return XD_OK;
    }
    if (to != DType::F32 && to != DType::F16 && to != DType::BF16)
      return error(c, XD_UNSUPPORTED_DATA, cat("the memory host casts to no ", manifest::name(to)));
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
          return error(c, XD_UNSUPPORTED_DATA,
                       cat("the memory host casts no ", manifest::name(from)));
      }
      if (to == DType::F32) put_le(out, std::bit_cast<uint32_t>(value));
      if (to == DType::F16) put_le(out, narrow(value, 10));
      if (to == DType::BF16) put_le(out, narrow(value, 7));
    }
    return XD_OK;
  }

  static xd_status tensor_read(xd_call* c, const xd_range* r, void* dst, uint64_t dst_size) {
    MemoryHost& host = self(c);
    if (host.fault()) return error(c, XD_IO, "tensor_read: injected fault");
    std::string bytes;
    if (const xd_status status = dense(c, *r, bytes); status != XD_OK) return status;
    if (bytes.size() != dst_size) {
      return error(
          c, XD_INVALID_ARGUMENT,
          cat("tensor ", r->tensor, ": a buffer of ", dst_size, " bytes for ", bytes.size()));
    }
    if (dst_size > 0) std::memcpy(dst, bytes.data(), dst_size);
    const std::lock_guard lock(host.mutex_);
    of(c).read.push_back({r->tensor, {r->begin, r->begin + r->count}});
    return XD_OK;
  }

  // The range of an object, once; makes its bytes.
  static xd_status claim(xd_call* c, PlanObject& object, uint64_t off, uint64_t n) {
    MemoryHost& host = self(c);
    const std::lock_guard lock(host.mutex_);
    if (off > object.size || n > object.size - off) {
      return error(c, XD_OUT_OF_RANGE,
                   cat("write ", n, " bytes at ", off, " of \"", object.path, "\": it has only ",
                       object.size));
    }
    if (!mark(object, off, off + n)) {
      return error(c, XD_INVALID_ARGUMENT,
                   cat("write ", n, " bytes at ", off, " of \"", object.path,
                       "\": some were already written"));
    }
    if (object.data.size() < off + n)
      object.data.resize(object.flags & XD_OBJECT_SIZE_AT_SEAL ? off + n : object.size);
    return XD_OK;
  }

  static xd_status object_write(xd_call* c, xd_object* o, uint64_t off, const void* data,
                                uint64_t n) {
    MemoryHost& host = self(c);
    if (host.fault()) return error(c, XD_IO, "object_write: injected fault");
    PlanObject& object = object_of(o);
    if (const xd_status status = claim(c, object, off, n); status != XD_OK) return status;
    if (n > 0) std::memcpy(object.data.data() + off, data, n);
    progress(c, n);
    return XD_OK;
  }

  static xd_status object_zero(xd_call* c, xd_object* o, uint64_t off, uint64_t n) {
    MemoryHost& host = self(c);
    if (host.fault()) return error(c, XD_IO, "object_zero: injected fault");
    if (const xd_status status = claim(c, object_of(o), off, n); status != XD_OK) return status;
    const std::lock_guard lock(host.mutex_);
    object_of(o).hole_bytes += n;
    return XD_OK;
  }

  static uint64_t object_size(xd_call* c, const xd_object* o) {
    const std::lock_guard lock(self(c).mutex_);
    return reinterpret_cast<const PlanObject*>(o)->end();
  }

  static xd_status object_read(xd_call* c, xd_object* o, uint64_t off, void* dst, uint64_t n) {
    MemoryHost& host = self(c);
    if (host.fault()) return error(c, XD_IO, "object_read: injected fault");
    if (!of(c).is_sealing) return error(c, XD_UNIMPLEMENTED, "objects are read back in seal only");
    const PlanObject& object = object_of(o);
    const std::lock_guard lock(host.mutex_);
    if (off > object.data.size() || n > object.data.size() - off)
      return error(c, XD_OUT_OF_RANGE,
                   cat("read ", n, " bytes at ", off, " of \"", object.path, "\": it has only ",
                       object.data.size()));
    if (n > 0) std::memcpy(dst, object.data.data() + off, n);
    return XD_OK;
  }
};

MemoryHost::MemoryHost()
    : table_{XD_INIT_SIZE(xd_host), XD_ABI_MINOR,        Calls::get_extension,
             Calls::fail,           Calls::log,          Calls::cancelled,
             Calls::progress,       Calls::piece_bytes,  Calls::alloc,
             Calls::dealloc,        Calls::input_count,  Calls::input_entry,
             Calls::input_named,    Calls::source_open,  Calls::source_size,
             Calls::source_read,    Calls::bytes_append, Calls::plan_object,
             Calls::plan_item,      Calls::plan_aux,     Calls::plan_exclude,
             Calls::plan_note,      Calls::tensor_read,  Calls::object_write,
             Calls::object_zero,    Calls::object_size,  Calls::object_read} {}

MemoryHost::~MemoryHost() {
  if (blocks_.empty()) return;
  std::fprintf(stderr, "leak: the plugin still holds %zu blocks of memory\n", blocks_.size());
  std::abort();
}

Result<void> MemoryHost::Call::check_memory(std::string_view path, uint64_t number) const {
  if (item && peak > static_cast<int64_t>(item->memory)) {
    return Error{XD_INTERNAL, cat("\"", path, "\" item ", number, ": declared ", item->memory,
                                  " bytes of memory, allocated ", peak)};
  }
  if (held != 0)
    return Error{XD_INTERNAL, cat("\"", path, "\" item ", number, ": leak of ", held, " bytes")};
  return {};
}

}  // namespace crossdock::test
