// SPDX-License-Identifier: Apache-2.0

// A source that a reader plugin has opened: what it says of the model, its stored tensors' elements
// and its auxiliary files. tensor_source.h makes the tensors of the target from them.
#pragma once

#include "core/io/input.h"
#include "core/plugin/host.h"
#include "core/plugin/options.h"
#include "core/plugin/registry.h"

#include <crossdock/manifest_wire.hpp>

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace crossdock::convert {

// What reading a stored tensor costs (extensions.h).
struct ReadHint {
  uint64_t scratch = 0;  // bytes that one read() takes of the budget
  bool is_sequential = false;
};

class OpenModel {
 public:
  // `from`: a reader's format, or "auto": the reader whose probe scores best; for a writer of a
  // run's training state (`writer_caps`) among those that find a model under its standard name one
  // that gives such a state. `host` and `registry` outlive the model.
  static Result<std::unique_ptr<OpenModel>> open(plugin::Host& host,
                                                 const plugin::Registry& registry, io::Input input,
                                                 const std::string& from,
                                                 const plugin::GivenOptions& given,
                                                 uint64_t writer_caps = 0);
  ~OpenModel();

  const io::Input& input() const { return input_; }
  const plugin::Plugin& reader() const { return *reader_; }
  const plugin::CheckedOptions& reader_options() const { return options_; }
  plugin::Host& host() { return host_; }
  // Names of the source's files that were read since the reader was chosen.
  std::vector<std::string> read_files() const { return host_.opened(input_); }
  // For the user: what of the source is not read.
  const std::vector<std::string>& notes() const { return notes_; }

  // The reader's manifest, checked, with what the host knows of the files. Errors: one that breaks
  // its promises (manifest.proto).
  Result<manifest::Manifest> describe();

  // Stored elements [begin, begin + count) of a tensor in its own type, as its manifest counts
  // them: those of its storage where it has strides. [any]
  Result<void> read(uint64_t tensor, uint64_t begin, uint64_t count, std::span<std::byte> out);

  // What the reader says of reading a stored tensor (extensions.h), after describe().
  const ReadHint& hint(uint64_t tensor) const;
  bool has_sequential() const { return has_sequential_; }
  // The most that one read() takes of the budget.
  uint64_t scratch_bytes() const { return scratch_bytes_; }

  // An auxiliary file: bytes that the reader made, or an input object.
  uint64_t aux_size(const manifest::AuxFile& file) const;
  Result<void> read_aux(const manifest::AuxFile& file, uint64_t offset, std::span<std::byte> out);

 private:
  OpenModel(plugin::Host& host, io::Input input)
      : host_(host), input_(std::move(input)), handle_{&input_} {}
  Result<void> choose_reader(const plugin::Registry& registry, const std::string& from,
                             uint64_t writer_caps);
  Error several_models(const std::vector<const plugin::Plugin*>& readers) const;
  Error explain(const plugin::Registry& registry, Error error) const;
  int32_t probe(const plugin::Plugin& plugin);
  plugin::CallSpec spec(const char* function) const {
    return {.plugin = reader_->desc.id, .function = function, .instance = this};
  }
  Result<manifest::Manifest> check_manifest(const std::string& bytes) const;
  Result<void> check_source_files(manifest::Manifest& m) const;
  Result<void> check_aux_files(const manifest::Manifest& m) const;
  Result<void> ask_for_hints(const manifest::Manifest& m);

  plugin::Host& host_;
  const io::Input input_;
  const xd_input handle_;
  const plugin::Plugin* reader_ = nullptr;
  plugin::CheckedOptions options_;  // the reader's
  bool is_sure_ = true;  // of the reader: it was named, or takes the input for a model of its own
  std::vector<const plugin::Plugin*>
      others_;                // readers that find a model of theirs in the input too
  std::string probe_faults_;  // of readers that could not tell
  std::vector<std::string> weight_patterns_;  // of all readers
  std::vector<std::string> notes_;
  xd_reader* opened_ = nullptr;
  std::map<uint64_t, ReadHint> hints_;  // of the tensors that have one
  bool has_sequential_ = false;
  uint64_t scratch_bytes_ = 0;
  std::mutex serial_;  // for readers without XD_CAP_CONCURRENT
};

}  // namespace crossdock::convert
