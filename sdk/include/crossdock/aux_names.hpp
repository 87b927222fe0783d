// SPDX-License-Identifier: Apache-2.0

// Files that a Hugging Face model folder holds beside its weights, known by their names: the
// config, the tokenizer's files, the processor's, and the Trainer's beside a checkpoint of its own.
// A converter carries them along.
//
// Sources: transformers 5.23 (tokenization_utils_base.py, processing_utils.py, utils/hub.py).
#pragma once

#include <crossdock/manifest_wire.hpp>

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>

namespace crossdock {

namespace aux_names {

struct KnownName {
  std::string_view name;
  manifest::AuxKind kind;
};
using manifest::AuxKind;

inline constexpr std::array<KnownName, 29> kKnown{{
    {"config.json", AuxKind::kConfig},
    {"generation_config.json", AuxKind::kGenerationConfig},
    {"tokenizer.json", AuxKind::kTokenizer},
    {"tokenizer_config.json", AuxKind::kTokenizer},
    {"special_tokens_map.json", AuxKind::kTokenizer},
    {"added_tokens.json", AuxKind::kTokenizer},
    {"vocab.json", AuxKind::kTokenizer},
    {"vocab.txt", AuxKind::kTokenizer},
    {"vocab.bpe", AuxKind::kTokenizer},
    {"merges.txt", AuxKind::kTokenizer},
    {"bpe.codes", AuxKind::kTokenizer},
    {"normalizer.json", AuxKind::kTokenizer},
    {"tokenizer.model", AuxKind::kTokenizer},
    {"tokenizer.model.v3", AuxKind::kTokenizer},
    {"tekken.json", AuxKind::kTokenizer},
    {"spiece.model", AuxKind::kTokenizer},
    {"spm.model", AuxKind::kTokenizer},
    {"source.spm", AuxKind::kTokenizer},
    {"target.spm", AuxKind::kTokenizer},
    {"sentencepiece.bpe.model", AuxKind::kTokenizer},
    {"sentencepiece.model", AuxKind::kTokenizer},
    {"chat_template.json", AuxKind::kTokenizer},
    {"chat_template.jinja", AuxKind::kTokenizer},
    {"preprocessor_config.json", AuxKind::kProcessor},
    {"video_preprocessor_config.json", AuxKind::kProcessor},
    {"processor_config.json", AuxKind::kProcessor},
    {"audio_tokenizer_config.json", AuxKind::kProcessor},
    {"trainer_state.json", AuxKind::kTrainer},
    {"scheduler.pt", AuxKind::kTrainer},
}};

}  // namespace aux_names

// What the file is to the model, by its name in the folder; nothing for all else, such as weights
// and most of what lies in subfolders.
inline std::optional<manifest::AuxKind> aux_kind(std::string_view name) {
  using manifest::AuxKind;
  const auto& known = aux_names::kKnown;
  const auto it = std::find_if(known.begin(), known.end(),
                               [&](const aux_names::KnownName& k) { return k.name == name; });
  if (it != known.end()) return it->kind;
  constexpr std::string_view kTemplates = "additional_chat_templates/";
  if (name.starts_with(kTemplates)) {
    const bool is_direct = name.find('/', kTemplates.size()) == std::string_view::npos;
    return is_direct && name.ends_with(".jinja") ? std::optional(AuxKind::kTokenizer)
                                                 : std::nullopt;
  }
  if (name.find('/') == std::string_view::npos && name.ends_with(".tiktoken"))
    return AuxKind::kTokenizer;
  return std::nullopt;
}

}  // namespace crossdock
