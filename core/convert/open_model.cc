// SPDX-License-Identifier: Apache-2.0
#include "core/convert/open_model.h"

#include "core/base/text.h"
#include "core/convert/source_hints.h"
#include "core/model/check.h"

#include <cstring>
#include <utility>

namespace crossdock::convert {

namespace {
// Scores of a reader, 0 to 100: of a model under the format's standard name; of something that it
// takes for a model.
constexpr int32_t kStandard = 80, kSure = 50;
// The one option of readers that the host has too, for what it dequantises itself.
constexpr char kDequantDtype[] = "dequant-dtype";

std::string names_of(const io::Input& input) {
  std::vector<std::string> names;
  for (const io::InputEntry& entry : input.entries()) names.push_back(entry.name);
  return names.empty() ? "no files" : base::listed(names);
}

// What a reader's files of weights are called.
std::vector<std::string> weight_patterns(const plugin::Plugin& reader) {
  std::vector<std::string> out;
  for (auto pattern = reader.desc.patterns; pattern && *pattern; ++pattern)
    out.emplace_back(*pattern);
  return out;
}
std::vector<std::string> weight_patterns(const plugin::Registry& registry) {
  std::vector<std::string> out;
  for (const plugin::Plugin& plugin : registry.plugins()) {
    if (!plugin.is_reader()) continue;
    const auto patterns = weight_patterns(plugin);
    out.insert(out.end(), patterns.begin(), patterns.end());
  }
  return out;
}

bool has_option(const plugin::Plugin& plugin, const std::string& name) {
  for (auto option = plugin.desc.options; option && *option; ++option) {
    if ((*option)->name == name) return true;
  }
  return false;
}

// An option that other readers have would be without effect: an error, for the user means it.
Result<void> check_taken(const plugin::Registry& registry, const plugin::Plugin& reader,
                         const plugin::GivenOptions& given) {
  for (const auto& [name, values] : given) {
    if (values.empty() || name == kDequantDtype || has_option(reader, name)) continue;
    std::string others;
    for (const plugin::Plugin& other : registry.plugins()) {
      if (other.is_reader() && has_option(other, name))
        others += cat(others.empty() ? "" : " or ", other.format());
    }
    return invalid(cat("--", name, ": expected a source in the format ", others,
                       ", found one that ", reader.format(),
                       " reads: leave the flag out, or choose with --from"));
  }
  return {};
}

// What the ends of a buffer hold before a read: numbers that no format writes.
constexpr uint64_t kMarks[] = {0x9d3b5f0c71e82a46, 0x62c4a0f38e17d5b9};

bool is_left(std::span<const std::byte> bytes, uint64_t mark) {
  return std::memcmp(bytes.data(), &mark, sizeof mark) == 0 ||
         std::memcmp(bytes.data() + bytes.size() - sizeof mark, &mark, sizeof mark) == 0;
}

}  // namespace

Result<std::unique_ptr<OpenModel>> OpenModel::open(plugin::Host& host,
                                                   const plugin::Registry& registry,
                                                   io::Input input, const std::string& from,
                                                   const plugin::GivenOptions& given,
                                                   uint64_t writer_caps) {
  std::unique_ptr<OpenModel> self(new OpenModel(host, std::move(input)));
  XD_TRY(self->choose_reader(registry, from, writer_caps));
  host.forget_opened();
  XD_TRY(check_taken(registry, *self->reader_, given));
  XD_TRY_SET(self->options_, plugin::CheckedOptions::check(self->reader_->desc.options, given));
  const xd_reader_open args{XD_INIT_SIZE(xd_reader_open), 0, &self->handle_,
                            self->options_.table()};
  auto opened = host.call(self->spec("open"), [&](xd_call* c) {
    return self->reader_->reader.open(c, &args, &self->opened_);
  });
  if (opened && !self->opened_)
    opened = plugin::named({XD_INTERNAL, "it said that it opened, and gave nothing"},
                           self->spec("open"));
  if (!opened) return self->explain(registry, opened.error());
  self->weight_patterns_ = weight_patterns(registry);
  return self;
}

// A reader's refusal, with what the source tells beyond it.
Error OpenModel::explain(const plugin::Registry& registry, Error error) const {
  if (const std::string what = is_sure_ ? "" : foreign_checkpoint(input_); !what.empty())
    return unsupported(cat("expected a checkpoint in a format that can be read (",
                           registry.formats(XD_READER), "), found ", what));
  const auto add = [&](const std::string& text) {
    if (!text.empty()) error.message += "; " + text;
  };
  if (error.code == XD_NOT_FOUND) {
    add(missing_downloads(input_, weight_patterns(*reader_)));
    if (const std::string links = broken_links(input_); !links.empty()) add("SRC has " + links);
  }
  for (const plugin::Plugin* other : others_)
    add(cat("--from ", other->format(), " reads the other model that ", input_.given(), " holds"));
  return error;
}

OpenModel::~OpenModel() {
  if (!opened_) return;
  (void)host_.call(spec("close"),
                   [&](xd_call* c) { return reader_->reader.close(c, opened_), XD_OK; });
  host_.memory().dealloc_all(this);
}

// 0 where the reader has no answer: a plugin that fails at another's files must not keep them from
// being read.
int32_t OpenModel::probe(const plugin::Plugin& plugin) {
  int32_t score = 0;
  const auto warn = [&](const std::string& text) {
    if (host_.log) host_.log(XD_LOG_WARN, text);
    probe_faults_ += cat("; ", text);
    return 0;
  };
  const auto asked =
      host_.call({.plugin = plugin.desc.id, .function = "probe", .frees_all = true},
                 [&](xd_call* c) { return score = plugin.reader.probe(c, &handle_), XD_OK; });
  if (!asked) return warn(asked.error().message);
  if (score < 0 || score > 100)
    return warn(cat("expected a score of 0 to 100, found ", score, " [", plugin.id(), ": probe]"));
  return score;
}

Result<void> OpenModel::choose_reader(const plugin::Registry& registry, const std::string& from,
                                      uint64_t writer_caps) {
  if (from != "auto") {
    reader_ = registry.find_reader(from);
    if (!reader_)
      return invalid(
          cat("--from: expected one of auto, ", registry.formats(XD_READER), ", found ", from));
    return {};
  }
  int32_t best = 0;
  bool has_state = false;
  std::vector<const plugin::Plugin*> standard;  // that find a model under its standard name
  for (const plugin::Plugin& plugin : registry.plugins()) {
    if (!plugin.is_reader()) continue;
    const int32_t score = probe(plugin);
    if (score >= kStandard) standard.push_back(&plugin);
    if (score >= kSure) others_.push_back(&plugin);
    // A checkpoint of a training loop often has the weights alone beside it, as for inference.
    const bool gives_state =
        score >= kStandard && (plugin.desc.caps & writer_caps & XD_CAP_TRAINING_STATE) != 0;
    if (std::pair(gives_state, score) > std::pair(has_state, best)) {
      has_state = gives_state;
      best = score;
      reader_ = &plugin;
    }
  }
  is_sure_ = best >= kSure;
  if (best < kStandard && others_.size() > 1) return several_models(others_);
  if (best < kStandard && has_broken_weights(input_, weight_patterns(registry)))
    return Error{XD_NOT_FOUND, cat("expected the files of a model in ", input_.given(), ", found ",
                                   broken_links(input_),
                                   ": download the model again, or copy it with its blobs")};
  std::erase(others_, reader_);
  for (const plugin::Plugin* other : standard) {
    if (other == reader_ || !host_.log) continue;
    host_.log(XD_LOG_WARN, cat(input_.given(), " also holds a model that ", other->format(),
                               " could be read from: reading ", reader_->format(), "; --from ",
                               other->format(), " chooses the other."));
  }
  if (reader_) return {};
  const std::string what = foreign_checkpoint(input_), links = broken_links(input_);
  const std::string expected = cat("expected a checkpoint in a format that can be read (",
                                   registry.formats(XD_READER), "), found ");
  if (!what.empty()) return unsupported(expected + what);
  if (!links.empty() && input_.entries().empty()) {
    return Error{XD_NOT_FOUND, cat(expected, "only ", links,
                                   ": copy the blobs too, or download the model again")};
  }
  return unsupported(cat(expected, names_of(input_), " in ", input_.given(), ": ",
                         input_.named().empty()
                             ? "name the folder that holds the weights, or the file"
                             : "its first bytes are of none of them",
                         probe_faults_));
}

// None of them under a standard name, so nothing tells which is the model.
Error OpenModel::several_models(const std::vector<const plugin::Plugin*>& readers) const {
  std::string choices;
  for (const plugin::Plugin* reader : readers)
    choices += cat(choices.empty() ? "" : " or ", "--from ", reader->format());
  return invalid(cat("expected one model in ", input_.given(), ", found files of several formats (",
                     names_of(input_), "): name the file, or choose with ", choices));
}

Result<void> OpenModel::check_aux_files(const manifest::Manifest& m) const {
  for (const auto& file : m.aux_files) {
    if (!is_safe_name(file.name))
      return corrupt(cat("expected a plain relative name for an auxiliary file, found ",
                         base::printable(file.name)));
    const auto* source = std::get_if<std::string>(&file.content);
    if (source && !input_.find(*source))
      return corrupt(cat("expected the auxiliary file ", base::printable(*source),
                         " in the source, found none"));
  }
  return {};
}

// They are files of the input, as large as it has them.
Result<void> OpenModel::check_source_files(manifest::Manifest& m) const {
  for (auto& file : m.source.files) {
    if (!file.path.empty())
      return corrupt(cat("expected files without paths, which are the host's, found one of ",
                         base::printable(file.name)));
    const io::InputEntry* entry = input_.find(file.name);
    if (!entry)
      return corrupt(cat("expected files of ", input_.given(), " in the reader's list, found ",
                         base::printable(file.name)));
    if (entry->size != file.size)
      return corrupt(cat("expected ", entry->size, " bytes of ", base::printable(file.name),
                         " in the reader's list, found ", file.size));
    XD_TRY(input_.check_as_published(*entry));
    if (file.digest.empty()) file.digest = entry->digest;
  }
  return {};
}

Result<void> OpenModel::ask_for_hints(const manifest::Manifest& m) {
  if (!reader_->desc.get_extension) return {};
  xd_read_hints hints{};
  XD_TRY(host_.call(spec("get_extension"), [&](xd_call*) {
    const auto* given =
        static_cast<const xd_read_hints*>(reader_->desc.get_extension(XD_EXT_READ_HINTS));
    if (given) (void)plugin::copy_known(given, hints);
    return XD_OK;
  }));
  if (!hints.tensor) return {};
  for (uint64_t i = 0; i < m.tensors.size(); ++i) {
    xd_read_hint hint{.struct_size = XD_INIT_SIZE(xd_read_hint), .access = 0, .scratch = 0};
    XD_TRY(host_.call(spec("read_hints"),
                      [&](xd_call* c) { return hints.tensor(c, opened_, i, &hint); }));
    if (hint.access > XD_ACCESS_SEQUENTIAL || hint.scratch > host_.memory().limit())
      return plugin::named(
          {XD_NO_MEMORY,
           cat("expected a known kind of access and scratch within the memory budget of ",
               host_.memory().limit(), " bytes, found ", hint.access, " and ", hint.scratch)},
          spec("read_hints"));
    const bool is_sequential = hint.access == XD_ACCESS_SEQUENTIAL;
    if (hint.scratch > 0 || is_sequential) hints_[i] = {hint.scratch, is_sequential};
    has_sequential_ = has_sequential_ || is_sequential;
    scratch_bytes_ = std::max(scratch_bytes_, hint.scratch);
  }
  return {};
}

const ReadHint& OpenModel::hint(uint64_t tensor) const {
  static const ReadHint kNone;
  const auto it = hints_.find(tensor);
  return it == hints_.end() ? kNone : it->second;
}

Result<manifest::Manifest> OpenModel::describe() {
  xd_bytes bytes{.data = {}, .limit = XD_MAX_MANIFEST_BYTES};
  XD_TRY(host_.call(spec("manifest"),
                    [&](xd_call* c) { return reader_->reader.manifest(c, opened_, &bytes); }));
  XD_TRY_SET(auto m, check_manifest(bytes.data));
  XD_TRY(ask_for_hints(m));
  m.provenance.push_back({"crossdock " CROSSDOCK_VERSION,
                          cat(reader_->id(), " ", reader_->desc.version),
                          base::printable(input_.given())});
  if (std::string note = unread_weights(input_, m, weight_patterns_); !note.empty())
    notes_.push_back(std::move(note));
  if (const std::string links = broken_links(input_); !links.empty())
    notes_.push_back(cat("SRC has ", links, "."));
  return m;
}

// What a reader's manifest must not say is an error of that reader's.
Result<manifest::Manifest> OpenModel::check_manifest(const std::string& bytes) const {
  const auto check = [&]() -> Result<manifest::Manifest> {
    XD_TRY_SET(auto m, manifest::decode<manifest::Manifest>(as_bytes(bytes)));
    if (auto r = model::check(m); !r) return std::move(r).error().in(input_.given());
    XD_TRY(model::check_aliases(m));
    for (const auto& t : m.tensors) {
      if (!t.expression.empty())
        return corrupt(
            cat("expected tensors without expressions, which are the host's, found one in ",
                base::printable(t.name)));
    }
    XD_TRY(check_aux_files(m));
    XD_TRY(check_source_files(m));
    return m;
  };
  auto m = check();
  if (!m) return plugin::named(std::move(m).error(), spec("manifest"));
  return m;
}

Result<void> OpenModel::read(uint64_t tensor, uint64_t begin, uint64_t count,
                             std::span<std::byte> out) {
  const xd_range range{XD_INIT_SIZE(xd_range), 0, tensor, begin, count};
  std::unique_lock lock(serial_, std::defer_lock);
  if (!reader_->concurrent()) lock.lock();
  const auto read = [&] {
    return host_.call(spec("read"), [&](xd_call* c) {
      return reader_->reader.read(c, opened_, &range, out.data(), out.size());
    });
  };
  // A buffer has values of before: one whose ends are as they were left was not filled, or by
  // chance holds what they were left with, which a second mark tells apart.
  for (const uint64_t mark : kMarks) {
    if (out.size() >= sizeof mark) {
      std::memcpy(out.data(), &mark, sizeof mark);
      std::memcpy(out.data() + out.size() - sizeof mark, &mark, sizeof mark);
    }
    XD_TRY(read());
    if (out.size() < sizeof mark || !is_left(out, mark)) return {};
  }
  return plugin::named({XD_INTERNAL, "it said that it read values, and gave none"}, spec("read"));
}

uint64_t OpenModel::aux_size(const manifest::AuxFile& file) const {
  if (const auto* bytes = std::get_if<manifest::Bytes>(&file.content)) return bytes->data.size();
  const auto* source = std::get_if<std::string>(&file.content);
  const io::InputEntry* entry = source ? input_.find(*source) : nullptr;
  return entry ? entry->size : 0;
}

Result<void> OpenModel::read_aux(const manifest::AuxFile& file, uint64_t offset,
                                 std::span<std::byte> out) {
  if (const auto* bytes = std::get_if<manifest::Bytes>(&file.content)) {
    const auto piece = as_bytes(bytes->data).subspan(offset, out.size());
    std::copy(piece.begin(), piece.end(), out.begin());
    return {};
  }
  const auto* source = std::get_if<std::string>(&file.content);
  XD_TRY_SET(const xd_source* opened, host_.open_source(handle_, source ? *source : file.name));
  return host_.read_source(*opened, offset, out);
}

}  // namespace crossdock::convert
