// SPDX-License-Identifier: Apache-2.0
#include "core/plugin/host_calls.h"

#include "core/base/text.h"
#include "core/plugin/host.h"

#include <new>
#include <string_view>

namespace crossdock::plugin {

namespace {

Call& of(xd_call* c) { return *static_cast<Call*>(c); }

// Puts a Result of ours into the call's error.
xd_status report(Call& call, Result<void> result) {
  return result ? xd_status{XD_OK} : call.keep(std::move(result).error());
}

xd_status refuse(Call& call, xd_status code, std::string message) {
  return call.keep({code, std::move(message)});
}

// A function was handed what it must not be: the plugin's mistake, in the host's words.
xd_status misused(Call& call, const char* what) {
  return refuse(call, XD_INVALID_ARGUMENT, cat("the plugin's mistake: ", what));
}

// No exception may cross into a plugin; allocation is what can throw here.
template <class Body>
xd_status shielded(Call& call, Body&& body) noexcept {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return XD_NO_MEMORY;
  } catch (const std::exception& e) {
    return refuse(call, XD_INTERNAL, e.what());
  }
}

// A plugin's text as the user may see it: neither endless nor broken UTF-8.
std::string text_of(const char* text) {
  if (!text) return {};
  std::string_view all(text, strnlen(text, XD_MAX_MESSAGE_BYTES + 1));
  const bool is_cut = all.size() > XD_MAX_MESSAGE_BYTES;
  if (is_cut) all = all.substr(0, XD_MAX_MESSAGE_BYTES);
  while (is_cut && !all.empty() && (all.back() & 0xc0) == 0x80) all.remove_suffix(1);
  if (is_cut && !all.empty()) all.remove_suffix(1);  // of a letter that was cut, its beginning
  std::string out;
  if (base::is_utf8(all)) {
    out = all;
  } else {
    for (const char c : all) {
      if (static_cast<unsigned char>(c) < 0x80) {
        out += c;
        continue;
      }
      constexpr char kDigits[] = "0123456789abcdef";
      out += {'\\', 'x', kDigits[c >> 4 & 15], kDigits[c & 15]};
    }
  }
  return is_cut ? out + " ..." : out;
}

}  // namespace

struct HostCalls {
  static Host& host(xd_call* c) { return of(c).host; }

  static xd_status read_many(xd_call* c, const xd_source_range* const* ranges) {
    return shielded(of(c), [&]() -> xd_status {
      if (!ranges) return misused(of(c), "read_many of NULL");
      std::vector<Host::SourceRead> reads;
      for (; *ranges; ++ranges) {
        xd_source_range r{};
        if (!copy_known(*ranges, r) || !r.source || (!r.dst && r.size > 0))
          return misused(of(c), "a range of read_many that is too short, or has no source or dst");
        reads.push_back({*r.source, r.offset, {static_cast<std::byte*>(r.dst), r.size}});
      }
      return report(of(c), host(c).read_sources(reads));
    });
  }
  static const void* get_extension(xd_call*, const char* id) {
    static constexpr xd_read_many kReadMany{XD_INIT_SIZE(xd_read_many), 0, read_many};
    return id && std::string_view(id) == XD_EXT_READ_MANY ? &kReadMany : nullptr;
  }

  static xd_status fail(xd_call* c, const xd_failure* given) {
    Call& call = of(c);
    return shielded(call, [&]() -> xd_status {
      xd_failure failure{};
      if (!copy_known(given, failure)) return misused(call, "a failure that is too short");
      const std::string place = text_of(failure.place);
      const std::lock_guard lock(call.mutex);
      call.has_failed = true;
      if (failure.message || !call.error)
        call.error = Error{failure.code, text_of(failure.message)};
      Error& error = *call.error;
      if (!place.empty() && error.message.size() < 2 * XD_MAX_MESSAGE_BYTES)
        error.message.insert(0, place + (error.message.empty() ? "" : ": "));
      return failure.code;
    });
  }
  static void log(xd_call* c, int32_t level, const char* message) {
    Call& call = of(c);
    shielded(call, [&] {
      std::string text = text_of(message);
      if (text.empty()) return xd_status{XD_OK};
      if (level >= XD_LOG_PLUGIN_BUG) text += cat(" [", call.spec.plugin, ']');
      if (level >= XD_LOG_WARN && call.spec.notes) {
        call.spec.notes->add(std::move(text));
      } else if (call.host.log) {
        call.host.log(level, text);
      }
      return xd_status{XD_OK};
    });
  }
  static int32_t cancelled(xd_call* c) { return host(c).cancelled_ ? 1 : 0; }
  static void progress(xd_call* c, uint64_t bytes) { host(c).done_bytes_ += bytes; }
  static uint64_t piece_bytes(xd_call* c) { return host(c).piece_bytes_; }

  static void* alloc(xd_call* c, uint64_t size, uint64_t align) {
    Call& call = of(c);
    void* out = nullptr;
    shielded(call, [&]() -> xd_status {
      if (align == 0 || (align & (align - 1)) != 0) return XD_INVALID_ARGUMENT;
      const std::lock_guard lock(call.mutex);
      if (size > call.spec.memory || call.held > call.spec.memory - size) return XD_NO_MEMORY;
      out = call.host.memory_.alloc(size, align, call.owner());
      if (out) call.held += size;
      return XD_OK;
    });
    return out;
  }
  static void dealloc(xd_call* c, void* p) {
    Call& call = of(c);
    if (!p) return;
    shielded(call, [&]() -> xd_status {
      base::Memory& memory = call.host.memory_;
      if (const auto size = memory.dealloc(p, call.owner())) {
        const std::lock_guard lock(call.mutex);
        call.held -= std::min(call.held, *size);
      } else if (!memory.dealloc(p, call.spec.instance)) {
        call.blame("it gave back memory that is not its own, or gave it back twice");
      }
      return XD_OK;
    });
  }

  // ---- sources
  static uint64_t input_count(xd_call*, const xd_input* in) {
    return in ? in->input->entries().size() : 0;
  }
  static xd_status input_entry(xd_call* c, const xd_input* in, uint64_t i, xd_input_entry* out) {
    return shielded(of(c), [&]() -> xd_status {
      if (!in || !out || out->struct_size < sizeof(xd_input_entry))
        return misused(of(c), "an input or an entry that is NULL or too short");
      if (i >= in->input->entries().size())
        return refuse(of(c), XD_OUT_OF_RANGE,
                      cat("expected an entry below ", in->input->entries().size(), ", found ", i));
      out->name = in->input->entries()[i].name.c_str();
      out->size = in->input->entries()[i].size;
      return XD_OK;
    });
  }
  static const char* input_named(xd_call*, const xd_input* in) {
    return !in || in->input->named().empty() ? nullptr : in->input->named().c_str();
  }
  static xd_status source_open(xd_call* c, const xd_input* in, const char* name, xd_source** out) {
    return shielded(of(c), [&]() -> xd_status {
      if (!in || !name || !out) return misused(of(c), "source_open of NULL");
      auto source = host(c).open_source(*in, name);
      if (!source) return of(c).keep(std::move(source).error());
      *out = *source;
      return XD_OK;
    });
  }
  static uint64_t source_size(xd_call*, const xd_source* s) { return s ? s->entry->size : 0; }
  static xd_status source_read(xd_call* c, const xd_source* s, uint64_t offset, void* dst,
                               uint64_t n) {
    return shielded(of(c), [&]() -> xd_status {
      if (!s || (!dst && n > 0)) return misused(of(c), "source_read of NULL");
      return report(of(c), host(c).read_source(*s, offset, {static_cast<std::byte*>(dst), n}));
    });
  }
  static xd_status bytes_append(xd_call* c, xd_bytes* b, const void* data, uint64_t n) {
    return shielded(of(c), [&]() -> xd_status {
      if (!b || (!data && n > 0)) return misused(of(c), "bytes_append of NULL");
      if (n > b->limit - b->data.size())
        return refuse(of(c), XD_OUT_OF_RANGE,
                      cat("expected at most ", b->limit, " bytes in all, found more"));
      if (n > 0) b->data.append(static_cast<const char*>(data), n);
      return XD_OK;
    });
  }

  // ---- inside plan(): what a writer says is only noted; plan_check.cc judges it
  static xd_status plan_object(xd_call* c, xd_plan* p, const xd_object_desc* desc,
                               uint32_t* object) {
    return shielded(of(c), [&]() -> xd_status {
      constexpr uint32_t kFlags = XD_OBJECT_SIZE_AT_SEAL | XD_OBJECT_IN_ORDER;
      xd_object_desc given{};
      if (!p || !object || !copy_known(desc, given) || !given.path)
        return misused(of(c), "plan_object without a plan, a path or a place for its number");
      if ((given.flags & ~kFlags) != 0)
        return refuse(of(c), XD_UNIMPLEMENTED, "plan: an object with flags that are not known");
      if (p->plan.objects.size() >= UINT32_MAX)
        return refuse(of(c), XD_OUT_OF_RANGE, "plan: more objects than there are numbers");
      *object = static_cast<uint32_t>(p->plan.objects.size());
      p->plan.objects.push_back({given.path, given.size, given.flags});
      return XD_OK;
    });
  }
  static xd_status plan_item(xd_call* c, xd_plan* p, const xd_item_desc* desc) {
    return shielded(of(c), [&]() -> xd_status {
      xd_item_desc given{};
      if (!p || !copy_known(desc, given) || !given.needs)
        return misused(of(c), "plan_item without a plan or needs");
      if (given.object >= p->plan.objects.size())
        return refuse(of(c), XD_OUT_OF_RANGE, "plan: an item of an object that is not planned");
      PlanItem item{
          given.object, p->plan.objects[given.object].n_items, {}, given.out_bytes, given.memory};
      for (const xd_range* const* need = given.needs; *need; ++need) {
        xd_range range{};
        if (!copy_known(*need, range)) return misused(of(c), "a need that is too short");
        if (range.tensor >= p->n_tensors)
          return refuse(of(c), XD_OUT_OF_RANGE, "plan: an item of a tensor that does not exist");
        item.needs.push_back({range.tensor, range.begin, range.count});
      }
      p->plan.items.push_back(std::move(item));
      ++p->plan.objects[given.object].n_items;
      return XD_OK;
    });
  }
  static xd_status plan_aux(xd_call* c, xd_plan* p, const char* path, uint64_t aux) {
    return shielded(of(c), [&]() -> xd_status {
      if (!p || !path) return misused(of(c), "plan_aux without a plan or path");
      p->plan.aux.emplace_back(path, aux);
      return XD_OK;
    });
  }
  static xd_status plan_exclude(xd_call* c, xd_plan* p, uint64_t tensor, const char* reason) {
    return shielded(of(c), [&]() -> xd_status {
      if (!p) return misused(of(c), "plan_exclude without a plan");
      if (tensor >= p->n_tensors)
        return refuse(of(c), XD_OUT_OF_RANGE, "plan: an excluded tensor that does not exist");
      p->plan.excluded.emplace_back(tensor, text_of(reason));
      return XD_OK;
    });
  }
  static xd_status plan_note(xd_call* c, xd_plan* p, const char* text) {
    return shielded(of(c), [&]() -> xd_status {
      constexpr size_t kMax = 1000;
      if (!p || !text) return misused(of(c), "plan_note without a plan or text");
      if (p->plan.notes.size() < kMax) p->plan.notes.push_back(text_of(text));
      return XD_OK;
    });
  }

  // ---- inside write_item() and seal()
  static xd_status tensor_read(xd_call* c, const xd_range* r, void* dst, uint64_t dst_size) {
    return shielded(of(c), [&]() -> xd_status {
      xd_range range{};
      if (!copy_known(r, range) || (!dst && dst_size > 0))
        return misused(of(c), "tensor_read with a range that is too short, or of NULL");
      if (!of(c).spec.tensors)
        return refuse(of(c), XD_UNIMPLEMENTED, "tensors are read in write_item only");
      return report(of(c),
                    of(c).spec.tensors->read(range, {static_cast<std::byte*>(dst), dst_size}));
    });
  }
  static xd_status object_write(xd_call* c, xd_object* o, uint64_t offset, const void* data,
                                uint64_t n) {
    return shielded(of(c), [&]() -> xd_status {
      if (!o || (!data && n > 0)) return misused(of(c), "object_write of NULL");
      auto done = o->staged->write(offset, {static_cast<const std::byte*>(data), n}, o->written);
      if (done) host(c).done_bytes_ += n;
      return report(of(c), std::move(done));
    });
  }
  static xd_status object_zero(xd_call* c, xd_object* o, uint64_t offset, uint64_t n) {
    return shielded(of(c), [&]() -> xd_status {
      if (!o) return misused(of(c), "object_zero of NULL");
      return report(of(c), o->staged->zero(offset, n, o->written));
    });
  }
  static uint64_t object_size(xd_call*, const xd_object* o) { return o ? o->staged->end() : 0; }
  static xd_status object_read(xd_call* c, xd_object* o, uint64_t offset, void* dst, uint64_t n) {
    return shielded(of(c), [&]() -> xd_status {
      if (!o || (!dst && n > 0)) return misused(of(c), "object_read of NULL");
      if (!o->is_sealing)
        return refuse(of(c), XD_UNIMPLEMENTED, "objects are read back in seal only");
      return report(of(c), o->staged->read(offset, {static_cast<std::byte*>(dst), n}));
    });
  }
};

xd_host host_table() {
  using C = HostCalls;
  return {XD_INIT_SIZE(xd_host), XD_ABI_MINOR,    C::get_extension, C::fail,         C::log,
          C::cancelled,          C::progress,     C::piece_bytes,   C::alloc,        C::dealloc,
          C::input_count,        C::input_entry,  C::input_named,   C::source_open,  C::source_size,
          C::source_read,        C::bytes_append, C::plan_object,   C::plan_item,    C::plan_aux,
          C::plan_exclude,       C::plan_note,    C::tensor_read,   C::object_write, C::object_zero,
          C::object_size,        C::object_read};
}

}  // namespace crossdock::plugin
