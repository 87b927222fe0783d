#include "core/convert/open_model.h"

#include "core/base/text.h"
#include "core/convert/source_hints.h"
#include "core/model/check.h"

#include <algorithm>

namespace crossdock::convert {

namespace {
constexpr uint64_t kMostScratch = 4 << 20;
// Scores of a reader, 0 to 100: of a model under the format's standard name; of something that it
// takes for a model.
constexpr int32_t kStandard = 80, kSure = 50;

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

}  // namespace

Result<std::unique_ptr<OpenModel>> OpenModel::open(plugin::Host& host,
                                                   const plugin::Registry& registry,
                                                   io::Input input, const std::string& from,
                                                   const plugin::GivenOptions& given) {
  std::unique_ptr<OpenModel> self(new OpenModel(host, std::move(input)));
  XD_TRY(self->choose_reader(registry, from));
  XD_TRY_SET(self->options_, plugin::CheckedOptions::check(self->reader_->desc.options, given));
  const auto opened = host.call([&](xd_error* err) {
    return self->reader_->reader.open(host.table(), &self->handle_, self->options_.table(),
                                      &self->opened_, err);
  });
  if (!opened) return self->explain(registry, opened.error());
  XD_TRY(self->load_manifest());
  if (std::string note = unread_weights(self->input_, self->manifest_, weight_patterns(registry));
      !note.empty())
    self->notes_.push_back(std::move(note));
  if (const std::string links = broken_links(self->input_); !links.empty())
    self->notes_.push_back(cat("SRC has ", links, "."));
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
  if (opened_) reader_->reader.close(opened_);
}

Result<void> OpenModel::choose_reader(const plugin::Registry& registry, const std::string& from) {
  if (from != "auto") {
    reader_ = registry.find_reader(from);
    if (!reader_)
      return invalid(
          cat("--from: expected one of auto, ", registry.formats(XD_READER), ", found ", from));
    return {};
  }
  int32_t best = 0;
  std::vector<const plugin::Plugin*> standard;  // that find a model under its standard name
  for (const plugin::Plugin& plugin : registry.plugins()) {
    if (!plugin.is_reader()) continue;
    const int32_t score = plugin.reader.probe(host_.table(), &handle_);
    if (score >= kStandard) standard.push_back(&plugin);
    if (score >= kSure) others_.push_back(&plugin);
    if (score > best) {
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
                             : "its first bytes are of none of them"));
}

// None of them under a standard name, so nothing tells which is the model.
Error OpenModel::several_models(const std::vector<const plugin::Plugin*>& readers) const {
  std::string choices;
  for (const plugin::Plugin* reader : readers)
    choices += cat(choices.empty() ? "" : " or ", "--from ", reader->format());
  return invalid(cat("expected one model in ", input_.given(), ", found files of several formats (",
                     names_of(input_), "): name the file, or choose with ", choices));
}

Result<void> OpenModel::load_manifest() {
  xd_bytes bytes;
  XD_TRY(host_.call([&](xd_error* err) { return reader_->reader.manifest(opened_, &bytes, err); }));
  XD_TRY_SET(manifest_, manifest::decode<manifest::Manifest>(as_bytes(bytes.data)));
  if (auto r = model::check(manifest_); !r) return std::move(r).error().in(input_.given());
  for (const auto& file : manifest_.aux_files) {
    if (!io::is_safe_name(file.name))
      return corrupt(cat("expected a plain relative name for an auxiliary file, found ",
                         base::printable(file.name)));
    const auto* source = std::get_if<std::string>(&file.content);
    if (source && !input_.find(*source))
      return corrupt(cat("expected the auxiliary file ", base::printable(*source),
                         " in the source, found none"));
  }
  for (auto& file : manifest_.source.files) {
    const io::InputEntry* entry = input_.find(file.name);
    if (!entry) continue;
    XD_TRY(input_.check_as_published(*entry));
    if (file.digest.empty()) file.digest = entry->digest;
  }
  manifest_.provenance.push_back({"crossdock " CROSSDOCK_VERSION,
                                  cat(reader_->id(), " ", reader_->desc.version),
                                  base::printable(input_.given())});
  return {};
}

Result<void> OpenModel::lay_out(const rules::RuleSet& rules, bool keep_unmatched) {
  const layout::ReadTensor read = [this](uint64_t tensor, std::span<std::byte> out) {
    return read_stored(tensor, 0, model::element_count(manifest_.tensors[tensor]), out);
  };
  XD_TRY_SET(layout::LaidOut made, layout::lay_out(rules, keep_unmatched, manifest_, read));
  if (made.programs.empty()) return {};
  auto stored = std::exchange(manifest_.tensors, std::move(made.tensors));
  if (auto r = model::check(manifest_); !r) {
    manifest_.tensors = std::move(stored);
    return std::move(r).error().in("layout rules");
  }
  if (made.config) {
    manifest_.source.config = std::move(made.config->value);
    manifest_.aux_files.push_back(
        {manifest::AuxKind::kConfig, "config.json", manifest::Bytes{std::move(made.config->text)}});
  }
  programs_ = std::move(made.programs);
  notes_.insert(notes_.end(), made.notes.begin(), made.notes.end());
  moves_elements_ =
      std::any_of(programs_.begin(), programs_.end(), [](const auto& p) { return !p.is_plain(); });
  return {};
}

uint64_t OpenModel::scratch_bytes() const {
  return moves_elements_ ? std::min(kMostScratch, 2 * host_.piece_bytes()) : 0;
}

Result<void> OpenModel::read(uint64_t tensor, uint64_t begin, uint64_t count,
                             std::span<std::byte> out) {
  if (programs_.empty()) return read_stored(tensor, begin, count, out);
  const layout::Program& program = programs_[tensor];
  if (program.is_plain()) return read_stored(program.pieces[0].tensor, begin, count, out);
  const uint64_t elem_bytes = manifest::info(manifest_.tensors[tensor].dtype).bits / 8;
  const base::Block scratch(host_.memory(), scratch_bytes());
  if (!scratch.data)
    return Error{XD_NO_MEMORY, "expected room to lay out a tensor: raise --memory"};
  const layout::Program::Read stored = [&](uint64_t from, uint64_t at, std::span<std::byte> to) {
    return read_stored(from, at, to.size() / elem_bytes, to);
  };
  return program.run(elem_bytes, begin, out, {scratch.data, scratch_bytes()}, stored);
}

Result<void> OpenModel::read_stored(uint64_t tensor, uint64_t begin, uint64_t count,
                                    std::span<std::byte> out) {
  const xd_range range{XD_INIT_SIZE(xd_range), XD_FORM_DENSE, tensor, begin, count, 0, 0};
  std::unique_lock lock(serial_, std::defer_lock);
  if (!reader_->concurrent()) lock.lock();
  return host_.call([&](xd_error* err) {
    return reader_->reader.read(opened_, &range, out.data(), out.size(), err);
  });
}

xd_status OpenModel::view(const xd_range& range, xd_view* out, xd_error* err) {
  if (!reader_->reader.view || !(reader_->desc.caps & XD_CAP_VIEW)) return XD_UNIMPLEMENTED;
  if (!programs_.empty()) return XD_UNIMPLEMENTED;
  std::unique_lock lock(serial_, std::defer_lock);
  if (!reader_->concurrent()) lock.lock();
  return reader_->reader.view(opened_, &range, out, err);
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
  if (auto r = io::read_exact(host_.os(), opened->fd.get(), offset, out); !r)
    return std::move(r).error().in(file.name);
  return {};
}

}  // namespace crossdock::convert
