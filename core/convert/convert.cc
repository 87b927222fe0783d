#include "core/convert/convert.h"

#include "core/base/text.h"
#include "core/convert/inspect.h"
#include "core/convert/open_model.h"
#include "core/convert/plan_check.h"
#include "core/convert/report.h"
#include "core/convert/scheduler.h"
#include "core/convert/source_hints.h"
#include "core/convert/tensor_service.h"
#include "core/convert/tied.h"
#include "core/model/check.h"
#include "core/model/config.h"
#include "core/model/config_check.h"
#include "core/model/describe.h"
#include "core/model/param_groups.h"
#include "core/model/refusals.h"
#include "core/model/rules.h"

#include <boost/filesystem/operations.hpp>

#include <algorithm>
#include <chrono>
#include <limits>
#include <numeric>
#include <optional>

namespace crossdock::convert {

namespace {

namespace fs = boost::filesystem;

class Stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// A writer that is open, closed with the object.
class OpenWriter {
 public:
  OpenWriter(const plugin::Plugin& plugin, xd_writer* handle) : plugin_(plugin), handle_(handle) {}
  OpenWriter(OpenWriter&& other) noexcept : plugin_(other.plugin_), handle_(std::exchange(other.handle_, nullptr)) {}
  OpenWriter& operator=(OpenWriter&&) = delete;
  ~OpenWriter() {
    if (handle_) plugin_.writer.close(handle_);
  }
  const xd_writer_api& api() const { return plugin_.writer; }
  xd_writer* get() const { return handle_; }

 private:
  const plugin::Plugin& plugin_;
  xd_writer* handle_;
};

// An output object while the job runs. Its items may run on several threads; the last to end seals it.
struct ObjectState {
  std::mutex mutex;
  std::unique_ptr<io::StagedObject> staged;
  std::vector<xd_bytes> results;
  uint32_t items_left = 0;
  std::string digest;
};

class Job {
 public:
  Job(const Request& request, const plugin::Registry& registry, io::Os& os, const std::atomic<bool>& cancelled,
      const Callbacks& callbacks)
      : request_(request),
        registry_(registry),
        os_(os),
        cancelled_(cancelled),
        callbacks_(callbacks),
        memory_(request.memory),
        host_(os, memory_, cancelled) {
    host_.log = [this](int32_t level, const std::string& message) {
      if (level >= XD_LOG_WARN) add_note(message);
    };
  }

  Result<Outcome> run() {
    Outcome outcome;
    const Stopwatch whole;
    XD_TRY(open());
    XD_TRY(plan());
    XD_TRY(summarise(outcome.plan));
    timings_.emplace_back("plan", whole.seconds());
    if (callbacks_.planned) callbacks_.planned(outcome.plan);
    if (request_.dry_run) {
      XD_TRY(io::check_destination(destination_, request_.overwrite));
      return outcome;
    }
    XD_TRY_SET(auto staging, io::Staging::open(os_, destination_, request_.overwrite));
    XD_TRY(check_space(outcome.plan));
    XD_TRY(write(*staging));
    XD_TRY(check_source_unchanged());
    XD_TRY(host_.call([&](xd_error* err) { return writer_->api().commit(writer_->get(), err); }));
    outcome.plan.notes = notes_;
    outcome.report = report();
    if (callbacks_.phase && request_.sync) callbacks_.phase("sync");
    if (cancelled_) return Error{XD_CANCELLED, "cancelled"};
    XD_TRY(staging->commit(outcome.report, request_.sync));
    outcome.seconds = whole.seconds();
    return outcome;
  }

 private:
  void add_note(std::string text) {
    const std::lock_guard lock(notes_mutex_);
    if (std::find(notes_.begin(), notes_.end(), text) == notes_.end()) notes_.push_back(std::move(text));
  }

  Result<void> open() {
    if (request_.memory < kLeastMemory) {
      return invalid(cat("--memory: expected at least ", base::human_memory(kLeastMemory), ", found ",
                         base::human_memory(request_.memory)));
    }
    writer_plugin_ = registry_.find_writer(request_.to);
    if (!writer_plugin_)
      return invalid(cat("--to: expected one of ", registry_.formats(XD_WRITER), ", found ", request_.to));
    XD_TRY_SET(options_, plugin::CheckedOptions::check(writer_plugin_->desc.options, request_.writer_options));
    XD_TRY_SET(auto input, io::open_input(request_.source));
    XD_TRY_SET(destination_, io::resolve_destination(request_.destination));
    XD_TRY(io::check_apart(input, destination_));
    XD_TRY_SET(model_, OpenModel::open(host_, registry_, std::move(input), request_.from, request_.reader_options));
    XD_TRY(model_->lay_out(request_.layout));
    for (const std::string& note : model_->notes()) add_note(note);
    const fs::path& root = model_->input().root();
    if (boost::system::error_code ec;
        !fs::is_directory(root, ec) && fs::exists(root.parent_path() / "config.json", ec)) {
      add_note(cat("SRC is one file, so the config.json and tokenizer beside it were not read: name the folder ",
                   root.parent_path().string(), " to use them."));
    }
    metadata_ = model_->take_metadata();
    target_ = model_->manifest();
    if (target_.tensors.empty()) return unsupported(cat("expected a model, found no tensors in ", request_.source));
    XD_TRY(model::refuse_quantised(target_));
    if (const std::string beside = quantisation_beside(model_->input());
        !beside.empty() && model::has_integer_values(target_))
      return unsupported(cat("expected plain weights, found integers in ", request_.source, " and ", beside,
                             " beside it, "
                             "which says that the model is quantised: convert from the model's bf16 or fp32 release"));
    std::optional<manifest::Manifest> description;
    if (!request_.target.description.empty()) {
      XD_TRY_SET(description, model::read_description(request_.target.description));
    }
    model::TargetOptions target = request_.target;
    if (!description) {
      manifest::Manifest renamed = target_;  // the rules know the job's names
      std::vector<std::string> early;
      XD_TRY(model::apply_target(target, nullptr, renamed, early));
      XD_TRY(check_plain_model(renamed, target));
      if (writer_plugin_->desc.caps & XD_CAP_MODULE) {
        XD_TRY_SET(description, describe_by_rules(renamed, target));
      }
    }
    std::vector<std::string> notes;
    XD_TRY(model::apply_target(target, description ? &*description : nullptr, target_, notes));
    XD_TRY(leave_out_tied(*model_, target_, window_bytes(), cancelled_, notes));
    for (std::string& note : notes) add_note(std::move(note));
    return {};
  }

  // What a conversion without a description of the job's module must be sure of itself: that this is a whole model, and
  // the one that config.json speaks of. Names of old that the class has no longer are renamed by its rule.
  Result<void> check_plain_model(const manifest::Manifest& renamed, model::TargetOptions& target) {
    XD_TRY(model::refuse_adapters(renamed));
    XD_TRY(model::refuse_moments(renamed));
    XD_TRY(model::refuse_ungathered(renamed));
    XD_TRY(model::check_against_config(plugin::rule_folders(), renamed, target.ignore_config_mismatch));
    // Names that the user changed are the job's own, and need not be those of the class.
    const bool renames = !target.renames.empty() || !target.add_prefix.empty() || !target.strip_prefix.empty();
    if (target.ignore_config_mismatch || renames) return {};
    auto names = model::check_parameters(plugin::rule_folders(), renamed);
    if (!names) {
      return Error{names.error().code, cat(names.error().message, in_brackets(model::wrapper_hint(renamed)),
                                           "; if the model lacks it on purpose, say --ignore-config-mismatch")};
    }
    target.rule_renames = std::move(names->renames);
    const std::string architecture = model::model_class(renamed).architecture;
    if (!names->is_known && !architecture.empty()) {
      add_note(cat("The names are those of the files: there is no rule for the module of ", architecture,
                   ", whose names in transformers 5 may be others. --target compares them."));
    }
    return {};
  }

  static std::string in_brackets(const std::string& text) { return text.empty() ? "" : cat(" (", text, ")"); }

  // What the rules say of the job's module; adds their renames to the job's.
  Result<manifest::Manifest> describe_by_rules(const manifest::Manifest& renamed, model::TargetOptions& target) const {
    auto found = model::describe_by_rules(plugin::rule_folders(), renamed);
    if (!found) {
      return Error{found.error().code,
                   cat("--to ", request_.to, " must know the job's module: ", found.error().message,
                       in_brackets(model::wrapper_hint(renamed)),
                       "; or describe it by `python -m crossdock_manifest describe MODEL -o target.pb` and give that "
                       "with --target target.pb")};
    }
    XD_TRY(model::add_param_groups(target.param_groups, found->no_decay, found->module));
    target.rule_renames = std::move(found->renames);
    return std::move(found->module);
  }

  // The reads ahead of a cast: as large as the budget lets every thread have, up to what disks like.
  uint64_t window_bytes() const {
    constexpr uint64_t kLeast = 64 << 10, kMost = 4 << 20;
    return std::clamp(request_.memory / (4 * request_.threads) / kLeast * kLeast, kLeast, kMost);
  }

  // What reading takes beside the writer's own memory.
  uint64_t reading_bytes() const { return window_bytes() + model_->scratch_bytes(); }

  Result<void> plan() {
    host_.set_piece_bytes(std::min<uint64_t>(window_bytes() / 2, 1 << 20));
    target_.source.metadata = std::exchange(metadata_, {});
    const std::string bytes = manifest::encode(target_);
    target_.source.metadata = {};  // the writer has it
    xd_writer* handle = nullptr;
    XD_TRY(host_.call([&](xd_error* err) {
      return writer_plugin_->writer.open(host_.table(), bytes.data(), bytes.size(), options_.table(), &handle, err);
    }));
    writer_.emplace(*writer_plugin_, handle);
    plan_.n_tensors = target_.tensors.size();
    XD_TRY(host_.call([&](xd_error* err) { return writer_->api().plan(writer_->get(), &plan_, err); }));
    for (const std::string& note : plan_.plan.notes) add_note(note);
    std::vector<std::string> notes;
    XD_TRY(check_plan(plan_.plan, target_, {request_.memory, reading_bytes(), request_.allow_case_collisions}, notes));
    for (std::string& note : notes) add_note(std::move(note));
    return {};
  }

  Result<void> summarise(PlanSummary& s) {
    s.format = target_.source.format;
    for (const auto& file : target_.source.files) s.source_bytes += file.size;
    s.tensors = target_.tensors.size();
    std::vector<bool> dropped(target_.tensors.size());
    for (const auto& [tensor, reason] : plan_.plan.drops) dropped[tensor] = true;
    for (size_t i = 0; i < target_.tensors.size(); ++i) {
      const manifest::Tensor& t = target_.tensors[i];
      if (!t.left_out.empty() || dropped[i]) {
        ++s.left_out;
      } else if (t.role == manifest::Role::kParameter) {
        ++s.parameters;
        s.parameter_elems += model::element_count(t);
      } else {
        ++s.buffers;
      }
    }
    s.files = plan_.plan.objects.size() + plan_.plan.aux.size() + 1;
    s.stored_bytes = stored_bytes(plan_.plan);
    for (const auto& object : plan_.plan.objects) s.apparent_bytes += object.size;
    for (const auto& [path, aux] : plan_.plan.aux) {
      s.apparent_bytes += model_->aux_size(target_.aux_files[aux]);
      s.stored_bytes += model_->aux_size(target_.aux_files[aux]);
    }
    uint64_t most = 0;
    for (const plugin::PlanItem& item : plan_.plan.items) most = std::max(most, item.memory + reading_bytes());
    s.peak_memory = std::min(most * request_.threads, request_.memory);
    s.notes = notes_;
    fs::path existing = destination_.parent_path();
    boost::system::error_code ec;
    while (!fs::exists(existing, ec) && existing.has_parent_path()) existing = existing.parent_path();
    s.free_bytes = fs::space(existing, ec).available;
    if (ec) s.free_bytes = std::numeric_limits<uint64_t>::max();
    return {};
  }

  Result<void> check_space(const PlanSummary& s) const {
    if (s.stored_bytes <= s.free_bytes) return {};
    return Error{XD_IO, cat("expected ", base::human_bytes(s.stored_bytes), " free for ", destination_.string(),
                            ", found ", base::human_bytes(s.free_bytes), ": free some, or choose another disk")};
  }

  Result<void> write(io::Staging& staging) {
    const Stopwatch watch;
    const plugin::Plan& plan = plan_.plan;
    objects_ = std::vector<ObjectState>(plan.objects.size());
    for (size_t i = 0; i < objects_.size(); ++i) {
      objects_[i].items_left = plan.objects[i].n_items;
      objects_[i].results.resize(plan.objects[i].n_items);
    }
    service_.emplace(*model_, window_bytes());
    host_.tensor_read = [this](const xd_range& range, std::span<std::byte> out) { return service_->read(range, out); };
    host_.tensor_view = [this](const xd_range& range, xd_view* out, xd_error* err) {
      return service_->view(range, out, err);
    };

    // Largest first, so that no thread is left alone with a large one at the end; objects without items, which are
    // small, last.
    std::vector<size_t> items(plan.items.size());
    std::iota(items.begin(), items.end(), size_t{0});
    std::stable_sort(items.begin(), items.end(),
                     [&](size_t a, size_t b) { return plan.items[a].out_bytes > plan.items[b].out_bytes; });
    std::vector<uint32_t> bare;
    for (uint32_t i = 0; i < plan.objects.size(); ++i) {
      if (plan.objects[i].n_items == 0) bare.push_back(i);
    }
    Schedule schedule;
    schedule.threads = request_.threads;
    uint64_t total = 0;
    for (const size_t i : items) {
      schedule.memory.push_back(plan.items[i].memory + reading_bytes());
      total += plan.items[i].out_bytes;
    }
    schedule.memory.resize(items.size() + bare.size(), 0);
    schedule.run = [&](size_t task) {
      return task < items.size() ? run_item(staging, plan.items[items[task]])
                                 : seal(staging, bare[task - items.size()]);
    };
    schedule.on_tick = [&] {
      if (callbacks_.progress) callbacks_.progress(std::min(host_.done_bytes(), total), total);
    };
    XD_TRY(run_schedule(schedule, memory_, cancelled_));
    XD_TRY(digest_others());
    XD_TRY(copy_aux(staging));
    if (callbacks_.progress) callbacks_.progress(total, total);
    timings_.emplace_back("write", watch.seconds());
    return {};
  }

  Result<xd_object> staged(io::Staging& staging, uint32_t object) {
    ObjectState& state = objects_[object];
    const std::lock_guard lock(state.mutex);
    if (!state.staged) {
      XD_TRY_SET(state.staged, staging.create(plan_.plan.objects[object].path, plan_.plan.objects[object].size));
    }
    return xd_object{state.staged.get()};
  }

  std::unique_lock<std::mutex> serial_lock() {
    std::unique_lock lock(serial_, std::defer_lock);
    if (!writer_plugin_->concurrent()) lock.lock();
    return lock;
  }

  Result<void> run_item(io::Staging& staging, const plugin::PlanItem& item) {
    XD_TRY_SET(xd_object object, staged(staging, item.object));
    ObjectState& state = objects_[item.object];
    {
      const auto serial = serial_lock();
      const TensorService::ItemScope scope(*service_, item);
      auto result = host_.call([&](xd_error* err) {
        return writer_->api().write_item(writer_->get(), item.object, item.number, &object, &state.results[item.number],
                                         err);
      });
      if (!result) return std::move(result).error().in(plan_.plan.objects[item.object].path);
    }
    {
      const std::lock_guard lock(state.mutex);
      if (--state.items_left != 0) return {};
    }
    return seal(staging, item.object);
  }

  Result<void> seal(io::Staging& staging, uint32_t index) {
    XD_TRY_SET(xd_object object, staged(staging, index));
    ObjectState& state = objects_[index];
    std::vector<xd_view> views;
    std::vector<const xd_view*> list;
    for (const xd_bytes& result : state.results)
      views.push_back({XD_INIT_SIZE(xd_view), 0, result.data.data(), result.data.size(), nullptr, nullptr});
    for (const xd_view& view : views) list.push_back(&view);
    list.push_back(nullptr);
    const auto serial = serial_lock();
    auto sealed = host_.call(
        [&](xd_error* err) { return writer_->api().seal(writer_->get(), index, &object, list.data(), err); });
    if (!sealed) return std::move(sealed).error().in(plan_.plan.objects[index].path);
    XD_TRY_SET(state.digest, state.staged->seal());
    state.staged.reset();
    return {};
  }

  // The tensors that no item read whole and in order: those left out, for the most part.
  Result<void> digest_others() {
    for (uint64_t i = 0; i < target_.tensors.size(); ++i) tensor_digests_.push_back(service_->digest_of(i));
    std::vector<uint64_t> others;
    for (uint64_t i = 0; i < tensor_digests_.size(); ++i) {
      if (tensor_digests_[i].empty()) others.push_back(i);
    }
    Schedule schedule;
    schedule.threads = request_.threads;
    schedule.memory.assign(others.size(), (1 << 20) + model_->scratch_bytes());
    schedule.run = [&](size_t task) -> Result<void> {
      XD_TRY_SET(tensor_digests_[others[task]],
                 digest_tensor(*model_, others[task], io::DigestKind::kXxh3, cancelled_));
      return {};
    };
    return run_schedule(schedule, memory_, cancelled_);
  }

  Result<void> copy_aux(io::Staging& staging) {
    const base::Block piece(memory_, window_bytes());
    if (!piece.data) return Error{XD_NO_MEMORY, "expected room to copy a file: raise --memory"};
    for (const auto& [path, aux] : plan_.plan.aux) {
      const manifest::AuxFile& file = target_.aux_files[aux];
      const uint64_t size = model_->aux_size(file);
      XD_TRY_SET(const auto object, staging.create(path, size));
      for (uint64_t at = 0; at < size;) {
        const uint64_t n = std::min(window_bytes(), size - at);
        XD_TRY(model_->read_aux(file, at, {piece.data, n}));
        XD_TRY(object->write(at, {piece.data, n}));
        at += n;
        if (cancelled_) return Error{XD_CANCELLED, "cancelled"};
      }
      XD_TRY_SET(std::string digest, object->seal());
      aux_files_.push_back({path, size, std::move(digest)});
    }
    return {};
  }

  Result<void> check_source_unchanged() const {
    const auto check = [this](const std::string& name) -> Result<void> {
      const io::InputEntry* entry = model_->input().find(name);
      return entry ? io::Input::check_unchanged(*entry) : Result<void>();
    };
    for (const auto& file : target_.source.files) XD_TRY(check(file.name));
    for (const auto& file : target_.aux_files) {
      if (const auto* name = std::get_if<std::string>(&file.content)) XD_TRY(check(*name));
    }
    return {};
  }

  std::string report() {
    Report r;
    r.model = model_.get();
    r.target = &target_;
    r.writer = writer_plugin_;
    r.plan = &plan_.plan;
    r.options = options_.pairs();
    r.notes = notes_;
    for (size_t i = 0; i < objects_.size(); ++i)
      r.files.push_back({plan_.plan.objects[i].path, plan_.plan.objects[i].size, objects_[i].digest});
    r.files.insert(r.files.end(), aux_files_.begin(), aux_files_.end());
    r.tensor_digests = tensor_digests_;
    r.seconds = timings_;
    return to_json(r);
  }

  const Request& request_;
  const plugin::Registry& registry_;
  io::Os& os_;
  const std::atomic<bool>& cancelled_;
  const Callbacks& callbacks_;
  base::Memory memory_;
  plugin::Host host_;
  const plugin::Plugin* writer_plugin_ = nullptr;
  plugin::CheckedOptions options_;
  fs::path destination_;
  std::unique_ptr<OpenModel> model_;
  manifest::Manifest target_;
  std::vector<manifest::KeyValue> metadata_;  // the source's, until the writer gets it
  std::optional<OpenWriter> writer_;
  xd_plan plan_;
  std::mutex notes_mutex_;
  std::vector<std::string> notes_;  // for the user: from the writer, and warnings of either plugin
  std::vector<ObjectState> objects_;
  std::optional<TensorService> service_;
  std::vector<std::string> tensor_digests_;
  std::vector<FileEntry> aux_files_;
  std::vector<std::pair<std::string, double>> timings_;
  std::mutex serial_;  // for writers without XD_CAP_CONCURRENT
};

}  // namespace

Result<Outcome> convert(const Request& request, const plugin::Registry& registry, io::Os& os,
                        const std::atomic<bool>& cancelled, const Callbacks& callbacks) {
  return Job(request, registry, os, cancelled, callbacks).run();
}

}  // namespace crossdock::convert
