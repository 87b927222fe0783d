// A source that a reader plugin has opened: its checked manifest, and its tensors' values. It has
// the source's own names until layout rules make it a model of Hugging Face's.
#pragma once

#include "core/io/input.h"
#include "core/layout/layout.h"
#include "core/plugin/host.h"
#include "core/plugin/options.h"
#include "core/plugin/registry.h"

#include <crossdock/manifest_wire.hpp>

#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace crossdock::convert {

class OpenModel {
 public:
  // `from`: a reader's format, or "auto": the reader whose probe scores best. `host` and `registry`
  // outlive the model.
  static Result<std::unique_ptr<OpenModel>> open(plugin::Host& host,
                                                 const plugin::Registry& registry, io::Input input,
                                                 const std::string& from,
                                                 const plugin::GivenOptions& given);
  ~OpenModel();

  // By layout rules, before anything is read. After an error all is as it was.
  Result<void> lay_out(const rules::RuleSet& rules, bool keep_unmatched);

  const io::Input& input() const { return input_; }
  const plugin::Plugin& reader() const { return *reader_; }
  const plugin::CheckedOptions& reader_options() const { return options_; }
  // As the reader gave it and layout rules made it. The conversion works on a copy whose tensors
  // have the same indexes.
  const manifest::Manifest& manifest() const { return manifest_; }
  // The source's metadata, which the manifest has no longer: a vocabulary takes tens of megabytes.
  std::vector<manifest::KeyValue> take_metadata() {
    return std::exchange(manifest_.source.metadata, {});
  }
  // For the user: what of the source is not read, and what layout rules say (layout.h).
  const std::vector<std::string>& notes() const { return notes_; }

  // Dense values of elements [begin, begin + count) in the manifest's own type. [any]
  Result<void> read(uint64_t tensor, uint64_t begin, uint64_t count, std::span<std::byte> out);
  xd_status view(const xd_range& range, xd_view* out, xd_error* err);
  plugin::Host& host() { return host_; }
  // That read() takes of the budget for a moment, where tensors are laid out anew.
  uint64_t scratch_bytes() const;

  // An auxiliary file: bytes that the reader made, or an input object.
  uint64_t aux_size(const manifest::AuxFile& file) const;
  Result<void> read_aux(const manifest::AuxFile& file, uint64_t offset, std::span<std::byte> out);

 private:
  OpenModel(plugin::Host& host, io::Input input)
      : host_(host), input_(std::move(input)), handle_{&input_} {}
  Result<void> choose_reader(const plugin::Registry& registry, const std::string& from);
  Error several_models(const std::vector<const plugin::Plugin*>& readers) const;
  Error explain(const plugin::Registry& registry, Error error) const;
  Result<void> load_manifest();
  Result<void> read_stored(uint64_t tensor, uint64_t begin, uint64_t count,
                           std::span<std::byte> out);

  plugin::Host& host_;
  const io::Input input_;
  const xd_input handle_;
  const plugin::Plugin* reader_ = nullptr;
  plugin::CheckedOptions options_;  // the reader's
  bool is_sure_ = true;  // of the reader: it was named, or takes the input for a model of its own
  std::vector<const plugin::Plugin*>
      others_;  // readers that find a model of theirs in the input too
  std::vector<std::string> notes_;
  xd_reader* opened_ = nullptr;
  std::mutex serial_;  // for readers without XD_CAP_CONCURRENT
  manifest::Manifest manifest_;
  std::vector<layout::Program> programs_;  // of the layout; empty: none
  bool moves_elements_ = false;            // any of them does more than to name a tensor
};

}  // namespace crossdock::convert
