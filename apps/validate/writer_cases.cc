// SPDX-License-Identifier: Apache-2.0
#include "apps/validate/cases.h"
#include "apps/validate/child.h"
#include "apps/validate/models.h"
#include "core/convert/plan_check.h"

#include <algorithm>
#include <optional>

namespace crossdock::validate {

namespace {

using test::Files;
using test::MemoryHost;

// A writer plugin, in a child.
class Writing {
 public:
  static Result<Writing> start(const Job& job, const std::string& id) {
    static std::optional<plugin::Registry> registry;  // outlives what the child does
    XD_TRY_SET(auto loaded, load(job));
    registry = std::move(loaded);
    XD_TRY_SET(const xd_plugin_desc* desc, find(*registry, id));
    return Writing(*desc, job);
  }
  const xd_plugin_desc& desc() const { return desc_; }
  const std::vector<Model>& models() const { return models_; }

  static void set(MemoryHost& host, const Model& model) { host.tensors = model.values; }
  Result<Files> write(MemoryHost& host, const Model& model) const {
    return test::run_writer(host, desc_, model.manifest, options_);
  }
  Result<void> plan(MemoryHost& host, const Model& model) const {
    return test::run_plan(host, desc_, model.manifest, options_);
  }

  // Runs it for every model that the writer takes; one that it refuses with a reason is none.
  template <class Body>
  Result<std::string> each(Body&& body, bool with_refused = false) const {
    std::string refused;
    size_t n = 0;
    for (const Model& model : models_) {
      MemoryHost host;
      set(host, model);
      now_at(cat("plan of \"", model.name, '"'));
      if (const auto planned = plan(host, model); !planned) {
        const bool may_refuse = planned.error().code == XD_UNSUPPORTED_DATA ||
                                planned.error().code == XD_INVALID_ARGUMENT;
        if (!may_refuse) return Error(planned.error()).in(model.name);
        if (refused.empty())
          refused = cat("; it refuses \"", model.name, "\": ", planned.error().message);
        continue;
      }
      now_at(cat("a run over \"", model.name, '"'));
      if (auto done = body(model); !done) return std::move(done).error().in(model.name);
      ++n;
    }
    if (n == 0) return invalid(cat("it takes none of the models", refused));
    return cat(n, " models", with_refused ? refused : "");
  }

 private:
  Writing(const xd_plugin_desc& desc, const Job& job)
      : desc_(desc), options_(options_of(job, desc)), models_(models_for(desc.caps, job.seed)) {}
  const xd_plugin_desc& desc_;
  test::OptionValues options_;
  std::vector<Model> models_;
};

// As the host keeps it. `memory`: of the items, which may depend on the host's pieces.
std::string text_of(const test::Plan& plan, bool with_memory) {
  std::string out;
  for (const auto& object : plan.objects) {
    out += cat("object ", object->path, ' ', object->size, ' ', object->flags, '\n');
    for (const test::PlanItem& item : object->items) {
      out += cat("item ", item.out_bytes, with_memory ? cat(' ', item.memory) : "");
      for (const xd_range& need : item.needs)
        out += cat(' ', need.tensor, ':', need.begin, '+', need.count, ':', need.dtype);
      out += '\n';
    }
  }
  for (const auto& [path, index] : plan.aux) out += cat("aux ", path, ' ', index, '\n');
  for (const auto& [tensor, reason] : plan.excluded)
    out += cat("without ", tensor, ' ', reason, '\n');
  return out;
}

plugin::Plan host_plan(const test::Plan& plan) {
  plugin::Plan out;
  for (uint32_t o = 0; o < plan.objects.size(); ++o) {
    const auto& object = *plan.objects[o];
    out.objects.push_back(
        {object.path, object.size, object.flags, static_cast<uint32_t>(object.items.size())});
    for (uint32_t i = 0; i < object.items.size(); ++i) {
      plugin::PlanItem item{o, i, {}, object.items[i].out_bytes, object.items[i].memory};
      for (const xd_range& need : object.items[i].needs)
        item.needs.push_back({need.tensor, need.begin, need.count});
      out.items.push_back(std::move(item));
    }
  }
  out.aux = plan.aux;
  out.excluded = plan.excluded;
  return out;
}

Result<void> plan_holds(const Writing& writing, const Model& model) {
  MemoryHost host;
  Writing::set(host, model);
  XD_TRY(writing.plan(host, model));
  std::vector<std::string> notes;
  return convert::check_plan(host_plan(host.plan), model.manifest,
                             {.memory = 64 << 20, .overhead = 0, .allow_case_collisions = true},
                             notes);
}

Result<void> plan_is_pure(const Writing& writing, const Model& model) {
  MemoryHost first, second, small;
  for (MemoryHost* host : {&first, &second, &small}) Writing::set(*host, model);
  small.piece = 4096;
  XD_TRY(writing.plan(first, model));
  XD_TRY(writing.plan(second, model));
  XD_TRY(writing.plan(small, model));
  if (text_of(first.plan, true) != text_of(second.plan, true))
    return invalid("a second plan of the same model is another one");
  if (text_of(first.plan, false) != text_of(small.plan, false))
    return invalid("the plan depends on piece_bytes(), which is another on each machine");
  return {};
}

Result<void> same_files(const Files& a, const Files& b, const char* what) {
  if (a.size() != b.size()) return invalid(cat(what, ": another number of files"));
  for (const auto& [path, bytes] : a) {
    const auto it = b.find(path);
    if (it == b.end()) return invalid(cat(what, ": no file ", path));
    if (it->second != bytes) return invalid(cat(what, ": ", path, " differs"));
  }
  return {};
}

Result<void> bytes_are_the_same(const Writing& writing, const Model& model) {
  MemoryHost plain;
  Writing::set(plain, model);
  XD_TRY_SET(const Files wanted, writing.write(plain, model));
  for (const uint64_t piece : {uint64_t{4096}, uint64_t{64} << 10}) {
    MemoryHost host;
    Writing::set(host, model);
    host.piece = piece;
    XD_TRY_SET(const Files got, writing.write(host, model));
    XD_TRY(same_files(wanted, got, "with smaller pieces"));
  }
  MemoryHost backwards;
  Writing::set(backwards, model);
  backwards.backwards = true;
  XD_TRY_SET(const Files reversed, writing.write(backwards, model));
  XD_TRY(same_files(wanted, reversed, "with its items in the other order"));
  MemoryHost twice;
  Writing::set(twice, model);
  twice.repeats_items = true;
  XD_TRY_SET(const Files repeated, writing.write(twice, model));
  return same_files(wanted, repeated, "with each item written a second time");
}

Result<void> threads_agree(const Writing& writing, const Model& model) {
  MemoryHost one, four;
  Writing::set(one, model);
  Writing::set(four, model);
  four.threads = 4;
  XD_TRY_SET(const Files wanted, writing.write(one, model));
  XD_TRY_SET(const Files got, writing.write(four, model));
  return same_files(wanted, got, "with four threads");
}

Result<void> faults_are_told(const Writing& writing, const Model& model, const Job& job) {
  MemoryHost good;
  Writing::set(good, model);
  XD_TRY(writing.write(good, model));
  const uint64_t step = std::max<uint64_t>(1, good.calls / job.samples);
  for (uint64_t n = 1; n <= good.calls; n += step) {
    MemoryHost host;
    Writing::set(host, model);
    host.fail_at = n;
    now_at(cat("a run over \"", model.name, "\" in which call ", n, " of the host fails"));
    const auto result = writing.write(host, model);
    if (result) return invalid(cat("call ", n, " of the host failed, and it went on as if not"));
    if (result.error().message.starts_with("leak") ||
        result.error().message.find("no message") != std::string::npos)
      return invalid(cat("call ", n, " of the host failed: ", result.error().message));
  }
  return {};
}

Result<void> cancel_ends(const Writing& writing, const Model& model) {
  MemoryHost good;
  Writing::set(good, model);
  XD_TRY(writing.write(good, model));
  for (uint64_t n = 1; n <= good.calls; n += 1 + good.calls / 20) {
    MemoryHost host;
    Writing::set(host, model);
    host.cancel_at = n;
    const auto result = writing.write(host, model);
    if (!result && result.error().code != XD_CANCELLED)
      return invalid(
          cat("expected a cancelled run to give XD_CANCELLED, found ", result.error().message));
  }
  // A long item polls.
  MemoryHost host;
  Writing::set(host, model);
  host.cancel = true;
  host.piece = 4096;
  uint64_t bytes = 0;
  for (const auto& object : good.plan.objects) bytes += object->data.size();
  if (bytes > (1 << 20) && writing.write(host, model))
    return invalid("it wrote a megabyte after a cancel: poll cancelled() between pieces");
  return {};
}

// A byte of each tensor that is not excluded changes what is written.
Result<void> values_count(const Writing& writing, const Model& model) {
  MemoryHost plain;
  Writing::set(plain, model);
  XD_TRY_SET(const Files wanted, writing.write(plain, model));
  std::vector<bool> excluded(model.values.size());
  for (const auto& [tensor, reason] : plain.plan.excluded) excluded[tensor] = true;
  for (uint64_t i = 0; i < model.values.size(); ++i) {
    if (excluded[i] || model.values[i].empty()) continue;
    const uint64_t size = model.values[i].size();
    for (const uint64_t at : {uint64_t{1} % size, size / 2 | (size > 1), size - 1}) {
      if (at >= size) continue;
      MemoryHost host;
      Writing::set(host, model);
      host.tensors[i][at] = static_cast<char>(host.tensors[i][at] ^ 1);
      XD_TRY_SET(const Files got, writing.write(host, model));
      if (same_files(wanted, got, "").has_value())
        return invalid(cat("tensor ", model.manifest.tensors[i].name, ": byte ", at, " of ", size,
                           " was changed, and what is written did not"));
    }
  }
  return {};
}

Result<void> two_at_once(const Writing& writing, const Model& model) {
  MemoryHost alone, first;
  Writing::set(alone, model);
  Writing::set(first, model);
  XD_TRY_SET(const Files wanted, writing.write(alone, model));
  // The others' whole runs between the plan and the items of this one.
  first.before_items = [&] {
    for (const Model& other : writing.models()) {
      MemoryHost host;
      Writing::set(host, other);
      (void)writing.write(host, other);
    }
  };
  XD_TRY_SET(const Files got, writing.write(first, model));
  return same_files(wanted, got, "with another writer at work");
}

Result<std::string> does_no_io(const Writing& writing) {
  if (!forbid_io(/*threads=*/false)) return skip("this system has no seccomp");
  return writing.each([&](const Model& model) -> Result<void> {
    MemoryHost host;
    Writing::set(host, model);
    XD_TRY(writing.write(host, model));
    return {};
  });
}

// What a reader of the same module and format makes of it.
Result<std::string> reads_back(const Writing& writing, const Job& job) {
  XD_TRY_SET(const auto registry, load(job));
  const xd_plugin_desc* reader = nullptr;
  for (const plugin::Plugin& p : registry.plugins()) {
    if (p.is_reader() && p.format() == writing.desc().formats[0]) reader = &p.desc;
  }
  if (!reader) return skip("the module has no reader of this format");
  return writing.each([&](const Model& model) -> Result<void> {
    MemoryHost host, back;
    Writing::set(host, model);
    XD_TRY_SET(back.inputs, writing.write(host, model));
    XD_TRY_SET(const auto opened, test::run_reader(back, *reader, options_of(job, *reader)));
    std::vector<bool> excluded(model.values.size());
    for (const auto& [tensor, reason] : host.plan.excluded) excluded[tensor] = true;
    const auto& read = opened->manifest.tensors;
    for (uint64_t i = 0; i < model.values.size(); ++i) {
      const manifest::Tensor& t = model.manifest.tensors[i];
      if (excluded[i]) continue;
      const auto it = std::find_if(read.begin(), read.end(), [&](const manifest::Tensor& other) {
        return other.name == t.target() && other.dtype == t.dtype;
      });
      if (it == read.end()) return invalid(cat("tensor ", t.name, " is not there when read back"));
      XD_TRY_SET(const std::string values, opened->read(static_cast<uint64_t>(it - read.begin())));
      if (values != model.values[i])
        return invalid(cat("tensor ", t.name, " has other values when it is read back"));
    }
    return {};
  });
}

}  // namespace

std::vector<Case> writer_cases(const Job& job, const std::string& id) {
  const auto with = [&job, id](auto body) {
    return [&job, id, body]() -> Result<std::string> {
      XD_TRY_SET(const Writing writing, Writing::start(job, id));
      return body(writing);
    };
  };
  const auto each = [&](auto body) {
    return with([body](const Writing& w) {
      return w.each([&](const Model& model) { return body(w, model); });
    });
  };
  return {
      {"plan.holds", "takes models, and plans safe paths, all tensors and bounded memory",
       with([](const Writing& w) {
         return w.each([&](const Model& model) { return plan_holds(w, model); }, true);
       })},
      {"plan.pure", "gives the same plan again, whatever the size of pieces", each(plan_is_pure)},
      {"write.same", "writes the same bytes in any order, in any pieces, and twice",
       each(bytes_are_the_same)},
      {"write.threads", "writes the same bytes with several threads",
       with([](const Writing& w) -> Result<std::string> {
         if (!(w.desc().caps & XD_CAP_CONCURRENT)) return skip("it says that it is not concurrent");
         return w.each([&](const Model& model) { return threads_agree(w, model); });
       })},
      {"write.values", "writes something else when a byte of a tensor is another",
       each(values_count)},
      {"write.two", "shares nothing with another writer of its kind", each(two_at_once)},
      {"write.faults", "tells of every call of the host that fails, and keeps nothing",
       each([&job](const Writing& w, const Model& m) { return faults_are_told(w, m, job); })},
      {"write.cancel", "ends when it is cancelled", each(cancel_ends)},
      {"write.no-io", "does no I/O of its own", with(does_no_io)},
      {"write.read-back", "is read back by the module's own reader",
       with([&job](const Writing& w) { return reads_back(w, job); })},
  };
}

}  // namespace crossdock::validate
