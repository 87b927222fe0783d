#include "core/plugin/host.h"

#include "core/base/activity.h"

#include <new>

namespace crossdock::plugin {

namespace {

// Puts a Result of ours into the plugin's error slot.
xd_status report(xd_error* err, const Result<void>& result) {
  if (result) return XD_OK;
  if (err) err->message = result.error().message;
  return result.error().code;
}

xd_status fail(xd_error* err, xd_status code, const std::string& message) {
  return report(err, Error{code, message});
}

// No exception may cross into a plugin; allocation is what can throw here.
template <class Call>
xd_status shielded(xd_error* err, Call&& call) noexcept {
  try {
    return call();
  } catch (const std::bad_alloc&) {
    return XD_NO_MEMORY;
  } catch (const std::exception& e) {
    return fail(err, XD_INTERNAL, e.what());
  }
}

}  // namespace

// The functions of the table, each as plugin.h promises it. `ctx` is the Host.
struct HostCalls {
  static Host& host(void* ctx) { return *static_cast<Host*>(ctx); }

  static const void* get_extension(void*, const char*) { return nullptr; }

  static xd_status fail(void*, xd_error* err, xd_status code, const char* where,
                        const char* message) {
    return shielded(err, [&] {
      if (!err) return code;
      if (message) err->message = message;
      if (where && *where)
        err->message.insert(0, std::string(where) + (err->message.empty() ? "" : ": "));
      return code;
    });
  }
  static void log(void* ctx, int32_t level, const char* message) {
    shielded(nullptr, [&] {
      if (host(ctx).log && message) host(ctx).log(level, message);
      return xd_status{XD_OK};
    });
  }
  static int32_t cancelled(void* ctx) { return host(ctx).cancelled_ ? 1 : 0; }
  static void progress(void* ctx, uint64_t bytes) { host(ctx).done_bytes_ += bytes; }
  static uint64_t piece_bytes(void* ctx) { return host(ctx).piece_bytes_; }
  static void* alloc(void* ctx, uint64_t size, uint64_t align) {
    return host(ctx).memory_.alloc(size, align);
  }
  static void dealloc(void* ctx, void* p) { host(ctx).memory_.dealloc(p); }

  // ---- sources; a number beyond the last gives an empty answer, for there is no way to fail here
  static uint64_t input_count(void*, const xd_input* in) { return in->input->entries().size(); }
  static const char* input_name(void*, const xd_input* in, uint64_t i) {
    return i < in->input->entries().size() ? in->input->entries()[i].name.c_str() : "";
  }
  static uint64_t input_size(void*, const xd_input* in, uint64_t i) {
    return i < in->input->entries().size() ? in->input->entries()[i].size : 0;
  }
  static const char* input_named(void*, const xd_input* in) {
    return in->input->named().empty() ? nullptr : in->input->named().c_str();
  }
  static xd_status source_open(void* ctx, const xd_input* in, const char* name, xd_source** out,
                               xd_error* err) {
    return shielded(err, [&] {
      auto source = host(ctx).open_source(*in, name);
      if (!source) return report(err, Result<void>(source.error()));
      *out = *source;
      return xd_status{XD_OK};
    });
  }
  static uint64_t source_size(void*, const xd_source* s) { return s->entry->size; }
  static xd_status source_read(void* ctx, const xd_source* s, uint64_t offset, void* dst,
                               uint64_t n, xd_error* err) {
    return shielded(err, [&] {
      return report(err, host(ctx).read_source(*s, offset, {static_cast<std::byte*>(dst), n}));
    });
  }
  static xd_status bytes_append(void*, xd_bytes* b, const void* data, uint64_t n, xd_error* err) {
    return shielded(err, [&] {
      b->data.append(static_cast<const char*>(data), n);
      return xd_status{XD_OK};
    });
  }

  // ---- inside plan(): what a writer says is only noted; plan_check.cc judges it
  static xd_status plan_object(void*, xd_plan* p, const char* path, uint64_t size, uint32_t* object,
                               xd_error* err) {
    return shielded(err, [&] {
      *object = static_cast<uint32_t>(p->plan.objects.size());
      p->plan.objects.push_back({path, size});
      return xd_status{XD_OK};
    });
  }
  static xd_status plan_item(void*, xd_plan* p, uint32_t object, const xd_range* const* needs,
                             uint64_t out_bytes, uint64_t memory, xd_error* err) {
    return shielded(err, [&]() -> xd_status {
      if (object >= p->plan.objects.size())
        return plugin::fail(err, XD_OUT_OF_RANGE, "plan: an item of an object that is not planned");
      PlanItem item{object, p->plan.objects[object].n_items, {}, out_bytes, memory};
      for (; *needs; ++needs) {
        if ((*needs)->tensor >= p->n_tensors)
          return plugin::fail(err, XD_OUT_OF_RANGE,
                              "plan: an item of a tensor that does not exist");
        if ((*needs)->form != XD_FORM_DENSE)
          return plugin::fail(err, XD_UNIMPLEMENTED,
                              "plan: expected needs in elements (dense), found another form");
        item.needs.push_back({(*needs)->tensor, (*needs)->begin, (*needs)->count});
      }
      p->plan.items.push_back(std::move(item));
      ++p->plan.objects[object].n_items;
      return XD_OK;
    });
  }
  static xd_status plan_aux(void*, xd_plan* p, const char* path, uint64_t aux, xd_error* err) {
    return shielded(err, [&] {
      p->plan.aux.emplace_back(path, aux);
      return xd_status{XD_OK};
    });
  }
  static xd_status plan_exclude(void*, xd_plan* p, uint64_t tensor, const char* reason,
                                xd_error* err) {
    return shielded(err, [&]() -> xd_status {
      if (tensor >= p->n_tensors)
        return plugin::fail(err, XD_OUT_OF_RANGE, "plan: an excluded tensor that does not exist");
      p->plan.excluded.emplace_back(tensor, reason);
      return XD_OK;
    });
  }
  static xd_status plan_note(void*, xd_plan* p, const char* text, xd_error* err) {
    return shielded(err, [&] {
      p->plan.notes.emplace_back(text);
      return xd_status{XD_OK};
    });
  }

  // ---- inside write_item(): tensors through the service (convert/execution.cc sets the two)
  static xd_status tensor_view(void* ctx, const xd_range* r, xd_view* out, xd_error* err) {
    return shielded(err, [&] {
      return host(ctx).tensor_view ? host(ctx).tensor_view(*r, out, err)
                                   : xd_status{XD_UNIMPLEMENTED};
    });
  }
  static xd_status tensor_read(void* ctx, const xd_range* r, void* dst, uint64_t dst_size,
                               xd_error* err) {
    return shielded(err, [&]() -> xd_status {
      if (!host(ctx).tensor_read)
        return plugin::fail(err, XD_UNIMPLEMENTED, "tensors are read in write_item only");
      return report(err, host(ctx).tensor_read(*r, {static_cast<std::byte*>(dst), dst_size}));
    });
  }
  static xd_status object_write(void* ctx, xd_object* o, uint64_t offset, const void* data,
                                uint64_t n, xd_error* err) {
    return shielded(err, [&] {
      const auto r = o->staged->write(offset, {static_cast<const std::byte*>(data), n}, o->written);
      if (r) host(ctx).done_bytes_ += n;
      return report(err, r);
    });
  }
  static xd_status object_zero(void*, xd_object* o, uint64_t offset, uint64_t n, xd_error* err) {
    return shielded(err, [&] { return report(err, o->staged->zero(offset, n, o->written)); });
  }
};

Host::Host(io::Os& os, base::Memory& memory, const std::atomic<bool>& cancelled)
    : os_(os), memory_(memory), cancelled_(cancelled) {
  using C = HostCalls;
  table_ = {XD_INIT_SIZE(xd_host),
            XD_ABI_MINOR,
            this,
            C::get_extension,
            C::fail,
            C::log,
            C::cancelled,
            C::progress,
            C::piece_bytes,
            C::alloc,
            C::dealloc,
            C::input_count,
            C::input_name,
            C::input_size,
            C::source_open,
            C::source_size,
            C::source_read,
            C::bytes_append,
            C::plan_object,
            C::plan_item,
            C::plan_aux,
            C::plan_exclude,
            C::plan_note,
            C::tensor_view,
            C::tensor_read,
            C::object_write,
            C::object_zero,
            C::input_named};
}

// A plugin that fails without a word is a plugin's bug; the user is told the number at least.
Result<void> Host::call(const std::function<xd_status(xd_error*)>& call) const {
  xd_error slot;
  const xd_status status = call(&slot);
  if (status == XD_OK) return {};
  if (slot.message.empty())
    slot.message = status == XD_CANCELLED
                       ? "cancelled"
                       : cat("the plugin gave status ", status, " and no message");
  return Error{status, std::move(slot.message)};
}

Result<xd_source*> Host::open_source(const xd_input& input, const std::string& name) {
  const io::InputEntry* entry = input.input->find(name);
  if (!entry)
    return Error{XD_NOT_FOUND,
                 cat("expected a file ", name, " in ", input.input->given(), ", found none")};
  // One handle for all: plugins keep it, and readers of many threads share it.
  xd_source* source = nullptr;
  {
    const std::lock_guard lock(mutex_);
    source = &sources_.emplace(entry, xd_source{input.input, entry}).first->second;
    opened_.insert(entry);
  }
  // So that what cannot be opened fails here.
  if (auto opened = descriptor_of(*source); !opened) return noticed(std::move(opened).error());
  return source;
}

Error Host::noticed(Error error) {
  const std::lock_guard lock(mutex_);
  if (!failed_read_ && (error.code == XD_IO || error.code == XD_NOT_FOUND)) failed_read_ = error;
  return error;
}

std::optional<Error> Host::failed_read() const {
  const std::lock_guard lock(mutex_);
  return failed_read_;
}

std::vector<std::string> Host::opened(const io::Input& input) const {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> out;
  for (const io::InputEntry* entry : opened_) {
    if (input.find(entry->name) == entry) out.push_back(entry->name);
  }
  return out;
}

void Host::forget_opened() {
  const std::lock_guard lock(mutex_);
  opened_.clear();
}

Result<void> Host::read_source(const xd_source& source, uint64_t offset, std::span<std::byte> out) {
  auto fd = descriptor_of(source);
  if (!fd) return noticed(std::move(fd).error());
  const base::Span span(base::Activity::kRead);
  auto done = io::read_exact(os_, (*fd)->get(), offset, out);
  if (!done) return noticed(std::move(done).error().in(source.entry->name));
  if (source_seen) source_seen(*source.entry, offset, out);
  return {};
}

Result<std::shared_ptr<const io::Fd>> Host::descriptor_of(const xd_source& source) {
  const std::lock_guard lock(mutex_);
  if (const auto it = open_by_entry_.find(source.entry); it != open_by_entry_.end()) {
    open_files_.splice(open_files_.begin(), open_files_, it->second);
    return it->second->fd;
  }
  XD_TRY_SET(io::Fd fd, source.input->open(os_, *source.entry));
  open_files_.push_front({source.entry, std::make_shared<const io::Fd>(std::move(fd))});
  open_by_entry_[source.entry] = open_files_.begin();
  if (open_files_.size() > kMaxOpenFiles) {
    open_by_entry_.erase(open_files_.back().entry);
    open_files_.pop_back();
  }
  return open_files_.front().fd;
}

}  // namespace crossdock::plugin
