#include "core/model/target.h"

#include "core/base/regex.h"
#include "core/base/text.h"
#include "core/model/describe.h"

#include <algorithm>
#include <array>
#include <span>
#include <unordered_map>

namespace crossdock::model {

using manifest::Kind;
using manifest::Manifest;
using manifest::Tensor;

namespace {

struct Rename {
  base::Regex from;
  std::string to;
};

Result<std::vector<Rename>> compile_renames(const std::vector<std::string>& rules) {
  std::vector<Rename> out;
  for (const std::string& rule : rules) {
    const size_t equals = rule.find('=');
    if (equals == std::string::npos || equals == 0) return invalid(cat("expected FROM=TO, found ", rule));
    XD_TRY_SET(auto from, base::Regex::compile(rule.substr(0, equals)));
    out.push_back({std::move(from), rule.substr(equals + 1)});
  }
  return out;
}

Result<std::string> renamed(const std::vector<Rename>& renames, std::string name) {
  for (const Rename& rename : renames) {
    XD_TRY_SET(name, rename.from.replace(name, rename.to));
  }
  return name;
}

// Puts the flag in front of an error.
template <class T>
Result<T> of_flag(std::string_view flag, Result<T> result) {
  return result ? std::move(result) : Result<T>(std::move(result).error().in(std::string(flag)));
}

Result<void> rename_all(const TargetOptions& options, Manifest& m) {
  XD_TRY_SET(const auto renames, of_flag("--rename", compile_renames(options.renames)));
  size_t stripped = 0;
  std::unordered_map<std::string, const Tensor*> seen;
  for (Tensor& t : m.tensors) {
    std::string name = t.target();
    if (!options.strip_prefix.empty() && name.starts_with(options.strip_prefix)) {
      name.erase(0, options.strip_prefix.size());
      ++stripped;
    }
    XD_TRY_SET(name, of_flag("--rename", renamed(renames, std::move(name))));
    name.insert(0, options.add_prefix);
    if (name.empty() && !t.name.empty()) {
      return invalid(
          cat("--strip-prefix, --rename: expected a name to be left of ", t.name, ", found none: change the pattern"));
    }
    if (!base::is_utf8(name))
      return invalid(cat("--rename, --add-prefix: expected UTF-8, found ", base::printable(name)));
    t.target_name = name == t.name ? "" : name;
    const auto [it, fresh] = seen.emplace(std::move(name), &t);
    if (!fresh) {
      return invalid(cat("expected different target names, found \"", it->first, "\" for both ", it->second->name,
                         " and ", t.name, ": change --strip-prefix or --rename"));
    }
  }
  if (!options.strip_prefix.empty() && stripped == 0 && !m.tensors.empty()) {
    return invalid(cat("--strip-prefix: expected tensors whose names begin with \"", options.strip_prefix,
                       "\", found none (the first is ", m.tensors.front().name, ")"));
  }
  return {};
}

// Marks every pattern that matches, so that one which matches nothing can be named.
Result<bool> any_matches(const std::vector<base::Regex>& patterns, const std::string& name, std::vector<bool>& used) {
  bool any = false;
  for (size_t i = 0; i < patterns.size(); ++i) {
    XD_TRY_SET(const bool found, patterns[i].is_in(name));
    if (found) used[i] = any = true;
  }
  return any;
}

Result<void> set_training(const TargetOptions& options, Manifest& m) {
  XD_TRY_SET(const auto trainable, of_flag("--trainable", base::compile_all(options.trainable)));
  XD_TRY_SET(const auto frozen, of_flag("--frozen", base::compile_all(options.frozen)));
  if (trainable.empty() && frozen.empty()) return {};
  std::vector<bool> used_trainable(trainable.size()), used_frozen(frozen.size());
  for (Tensor& t : m.tensors) {
    XD_TRY_SET(const bool wanted, of_flag("--trainable", any_matches(trainable, t.target(), used_trainable)));
    XD_TRY_SET(const bool refused, of_flag("--frozen", any_matches(frozen, t.target(), used_frozen)));
    const bool trains = (wanted || trainable.empty()) && !refused;
    t.train = trains ? manifest::Training::kTrainable : manifest::Training::kFrozen;
  }
  const auto unused = [](const std::vector<std::string>& patterns, const std::vector<bool>& used,
                         const char* flag) -> Result<void> {
    const auto it = std::find(used.begin(), used.end(), false);
    if (it == used.end()) return {};
    return invalid(cat(flag, ": expected a pattern that matches a tensor's name, found none for ",
                       patterns[static_cast<size_t>(it - used.begin())]));
  };
  XD_TRY(unused(options.trainable, used_trainable, "--trainable"));
  return unused(options.frozen, used_frozen, "--frozen");
}

const manifest::ValueMap* config_of(const Manifest& m) { return m.source.config.get<manifest::ValueMap>(); }

// A key of config.json, or of its text_config, where composite models keep it. null is as none.
const manifest::Value* config_value(const Manifest& m, std::string_view key) {
  const auto* config = config_of(m);
  if (!config) return nullptr;
  if (const auto* value = config->find(key); value && !value->get<manifest::Null>()) return value;
  const auto* nested = config->find("text_config");
  const auto* map = nested ? nested->get<manifest::ValueMap>() : nullptr;
  return map ? map->find(key) : nullptr;
}

Error quantised(const std::string& what) {
  return unsupported(cat("expected plain weights, found ", what,
                         ": this version does not dequantise; convert from the model's bf16 or fp32 release"));
}

bool ends_with_any(const std::string& name, std::initializer_list<std::string_view> endings) {
  return std::any_of(endings.begin(), endings.end(), [&](std::string_view e) { return name.ends_with(e); });
}

}  // namespace

Result<void> apply_target(const TargetOptions& options, const Manifest* description, Manifest& m,
                          std::vector<std::string>& notes) {
  for (Tensor& t : m.tensors) {
    if (t.role != manifest::Role::kUnspecified) continue;
    t.role = manifest::info(t.dtype).kind == Kind::kFloat ? manifest::Role::kParameter : manifest::Role::kBuffer;
  }
  XD_TRY(rename_all(options, m));
  if (description) XD_TRY(describe(*description, m, notes));
  XD_TRY(set_training(options, m));
  if (description) XD_TRY(make_groups(*description, m));
  return {};
}

Result<void> refuse_quantised(const Manifest& m) {
  if (const auto* value = config_value(m, "quantization_config"); value && !value->get<manifest::Null>()) {
    const auto* map = value->get<manifest::ValueMap>();
    const auto* method = map ? map->find("quant_method") : nullptr;
    const auto* name = method ? method->get<std::string>() : nullptr;
    return quantised(
        cat("config.json with quantization_config", name ? " \"" + base::printable(*name) + '"' : std::string()));
  }
  std::unordered_map<std::string_view, bool> names;
  for (const Tensor& t : m.tensors) names.emplace(t.name, true);
  for (const Tensor& t : m.tensors) {
    const Kind kind = manifest::info(t.dtype).kind;
    if (kind == Kind::kFloat8 || kind == Kind::kSubByte) {
      return quantised(cat("tensor ", base::printable(t.name), " of type ", manifest::name(t.dtype)));
    }
    // GPTQ and AWQ; FP8 and compressed-tensors; bitsandbytes 4 and 8 bit; MXFP4.
    const bool part =
        ends_with_any(t.name, {".qweight", ".qzeros", ".g_idx", ".weight_scale", ".weight_scale_inv", ".weight_packed",
                               ".weight_zero_point", ".weight_shape", ".absmax", ".quant_map", ".SCB"}) ||
        t.name.find(".quant_state.") != std::string::npos ||
        (t.name.ends_with("_blocks") && names.contains(t.name.substr(0, t.name.size() - 6) + "scales"));
    if (part)
      return quantised(cat("tensor ", base::printable(t.name), ", which a quantisation method left beside its codes"));
  }
  return {};
}

bool ties_embeddings(const Manifest& m) {
  const auto* value = config_value(m, "tie_word_embeddings");
  const auto* flag = value ? value->get<bool>() : nullptr;
  return flag && *flag;
}

Tied tied_embeddings(const Manifest& m) {
  constexpr std::string_view kOut[] = {"lm_head.weight", "embed_out.weight", "cls.predictions.decoder.weight"};
  constexpr std::string_view kIn[] = {"embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight",
                                      "shared.weight"};
  const auto is_one_of = [](std::string_view name, std::span<const std::string_view> endings) {
    return std::any_of(endings.begin(), endings.end(), [name](std::string_view ending) {
      return name == ending ||
             (name.size() > ending.size() && name.ends_with(ending) && name[name.size() - ending.size() - 1] == '.');
    });
  };
  // The name in the model decides (a renamed head may be the embeddings now); where that one says nothing, the
  // source's.
  const auto plays = [&](const Tensor& t, std::span<const std::string_view> part,
                         std::span<const std::string_view> other) {
    return is_one_of(t.target(), part) || (!is_one_of(t.target(), other) && is_one_of(t.name, part));
  };
  Tied tied;
  for (size_t i = 0; i < m.tensors.size() && !tied.out; ++i) {
    if (plays(m.tensors[i], kOut, kIn)) tied.out = i;
  }
  for (size_t i = 0; i < m.tensors.size() && tied.out && !tied.in; ++i) {
    const Tensor &t = m.tensors[i], &like = m.tensors[*tied.out];
    if (t.dtype != like.dtype || t.shape != like.shape) continue;  // of another part of the model
    if (plays(t, kIn, kOut)) tied.in = i;
  }
  return tied;
}

}  // namespace crossdock::model
