// SPDX-License-Identifier: Apache-2.0
#include "core/model/target.h"

#include "core/base/regex.h"
#include "core/base/text.h"
#include "core/model/config.h"
#include "core/model/describe.h"

#include <algorithm>
#include <optional>
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

// Where FROM=TO is cut: at the first '=' that is in no parentheses or brackets of FROM and has no
// backslash in front, so that "(?=x)" and "\\=" can be written. Of a pattern whose parentheses do
// not end, at the first of all.
size_t equals_sign(std::string_view rule) {
  int depth = 0;
  bool in_class = false;
  for (size_t i = 0; i < rule.size(); ++i) {
    const char c = rule[i];
    if (c == '\\') {
      ++i;
    } else if (in_class) {
      in_class = c != ']';
    } else if (c == '[') {
      in_class = true;
    } else if (c == '(' || c == ')') {
      depth += c == '(' ? 1 : -1;
    } else if (c == '=' && depth <= 0) {
      return i;
    }
  }
  return rule.find('=');
}

// ECMAScript takes a group that is not there for nothing, and sed's \1 for text. std::regex reads
// up to two digits.
Result<void> check_groups(std::string_view to, const base::Regex& from) {
  const auto digit = [&](size_t at) { return at < to.size() && to[at] >= '0' && to[at] <= '9'; };
  for (size_t i = 0; i < to.size(); ++i) {
    if (to[i] == '\\')
      return invalid(cat("expected $1 for the first group in TO, found ", to.substr(i, 3),
                         ": write $ and the number"));
    if (to[i] != '$') continue;
    const std::string_view number = to.substr(i + 1, digit(i + 1) ? (digit(i + 2) ? 2 : 1) : 0);
    if (number.empty()) {
      const bool is_known = i + 1 < to.size() && (to[i + 1] == '$' || to[i + 1] == '&');
      if (!is_known)
        return invalid(cat("expected a group's number, $ or & after $ in TO, found ",
                           to.substr(i, 3),
                           ": write $1 for the "
                           "first group, $$ for a $"));
    } else if (std::stoul(std::string(number)) > from.groups()) {
      return invalid(cat("expected a group of FROM in TO, which has ", from.groups(), ", found $",
                         number,
                         number.size() == 2 ? ": write $01 for the first group before a digit"
                                            : ": put parentheses around what it stands for"));
    }
    i += std::max<size_t>(number.size(), 1);
  }
  return {};
}

Result<std::vector<Rename>> compile_renames(const std::vector<std::string>& rules) {
  std::vector<Rename> out;
  for (const std::string& rule : rules) {
    const size_t equals = equals_sign(rule);
    if (equals == std::string::npos || equals == 0)
      return invalid(cat("expected FROM=TO, found ", rule));
    XD_TRY_SET(auto from, base::Regex::compile(rule.substr(0, equals)));
    XD_TRY(check_groups(std::string_view(rule).substr(equals + 1), from));
    out.push_back({std::move(from), rule.substr(equals + 1)});
  }
  return out;
}

// Sets used[i] where rename i matched.
Result<std::string> renamed(const std::vector<Rename>& renames, std::string name,
                            std::vector<bool>& used) {
  for (size_t i = 0; i < renames.size(); ++i) {
    XD_TRY_SET(const bool matches, renames[i].from.is_in(name));
    if (!matches) continue;
    used[i] = true;
    XD_TRY_SET(name, renames[i].from.replace(name, renames[i].to));
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
  std::vector<bool> used(renames.size());
  size_t stripped = 0;
  std::unordered_map<std::string, const Tensor*> seen;
  for (Tensor& t : m.tensors) {
    if (t.role == manifest::Role::kOptimizerState) continue;
    std::string name = t.target();
    if (!options.strip_prefix.empty() && name.starts_with(options.strip_prefix)) {
      name.erase(0, options.strip_prefix.size());
      ++stripped;
    }
    XD_TRY_SET(name, of_flag("--rename", renamed(renames, std::move(name), used)));
    name.insert(0, options.add_prefix);
    if (name.empty() && !t.name.empty()) {
      return invalid(cat("--strip-prefix, --rename: expected a name to be left of ", t.name,
                         ", found none: change the pattern"));
    }
    if (!base::is_utf8(name))
      return invalid(cat("--rename, --add-prefix: expected UTF-8, found ", base::printable(name)));
    t.set_target(name);
    const auto [it, fresh] = seen.emplace(std::move(name), &t);
    if (!fresh) {
      return invalid(cat("expected different target names, found \"", it->first, "\" for both ",
                         it->second->name, " and ", t.name, ": change --strip-prefix or --rename"));
    }
  }
  if (!options.strip_prefix.empty() && stripped == 0 && !m.tensors.empty()) {
    return invalid(cat("--strip-prefix: expected tensors whose names begin with \"",
                       options.strip_prefix, "\", found none (the first is ",
                       m.tensors.front().name, ")"));
  }
  const auto unused = std::find(used.begin(), used.end(), false);
  if (unused == used.end() || m.tensors.empty()) return {};
  return invalid(cat("--rename: expected a pattern that matches a tensor's name, found none for ",
                     options.renames[static_cast<size_t>(unused - used.begin())],
                     " (the first name is ", m.tensors.front().name, ")"));
}

// Marks every pattern that matches, so that one which matches nothing can be named.
Result<bool> any_matches(const std::vector<base::Regex>& patterns, const std::string& name,
                         std::vector<bool>& used) {
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
    if (t.role == manifest::Role::kOptimizerState) continue;
    XD_TRY_SET(const bool wanted,
               of_flag("--trainable", any_matches(trainable, t.target(), used_trainable)));
    XD_TRY_SET(const bool refused,
               of_flag("--frozen", any_matches(frozen, t.target(), used_frozen)));
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

}  // namespace

Result<void> give_names(const TargetOptions& options, Manifest& m) {
  for (Tensor& t : m.tensors) {
    if (t.role != manifest::Role::kUnspecified) continue;
    t.role = manifest::info(t.dtype).kind == Kind::kFloat ? manifest::Role::kParameter
                                                          : manifest::Role::kBuffer;
  }
  return rename_all(options, m);
}

Result<void> apply_module(const TargetOptions& options, const Manifest* module, Manifest& m,
                          std::vector<std::string>& notes) {
  if (module) XD_TRY(describe(*module, m, notes));
  XD_TRY(set_training(options, m));
  return module ? make_groups(*module, m) : Result<void>();
}

std::unordered_map<std::string, uint64_t> by_target_name(const Manifest& m) {
  std::unordered_map<std::string, uint64_t> out;
  for (uint64_t i = 0; i < m.tensors.size(); ++i) {
    if (m.tensors[i].excluded.empty()) out.emplace(m.tensors[i].target(), i);
  }
  return out;
}

std::string wrapper_hint(const Manifest& m) {
  // DataParallel and DeepSpeed; torch.compile; Lightning Fabric; FSDP; PEFT.
  constexpr std::string_view kWrappers[] = {
      "module.",           "_orig_mod.",       "_forward_module.", "_fsdp_wrapped_module.",
      "base_model.model.", "model._orig_mod.", "model.module.",    "model.base_model.model."};
  const auto is_state = [](const Tensor& t) { return t.role == manifest::Role::kOptimizerState; };
  if (std::all_of(m.tensors.begin(), m.tensors.end(), is_state)) return {};
  const auto all_begin_with = [&](const std::string& prefix) {
    return std::all_of(m.tensors.begin(), m.tensors.end(), [&](const Tensor& t) {
      return is_state(t) || t.target().starts_with(prefix);
    });
  };
  std::string prefix;
  for (bool longer = true; longer;) {
    longer = false;
    for (const std::string_view wrapper : kWrappers) {
      if (!all_begin_with(cat(prefix, wrapper))) continue;
      prefix += wrapper;
      longer = true;
    }
  }
  if (!prefix.empty())
    return cat("Every name begins with \"", prefix,
               "\", which a wrapper of the training program put there: --strip-prefix ", prefix,
               " takes it off.");
  for (const std::string_view inner :
       {"_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module."}) {
    const auto has_inner = [&](const Tensor& t) {
      return t.target().find(cat('.', inner)) != std::string::npos;
    };
    if (std::none_of(m.tensors.begin(), m.tensors.end(), has_inner)) continue;
    return cat("Some names hold \"", inner,
               "\", which a wrapper of the training program put there: --rename '",
               inner.substr(0, inner.size() - 1), "\\.=' takes it out.");
  }
  return {};
}

std::vector<manifest::AliasGroup> tied_embeddings(const Manifest& m,
                                                  std::vector<std::string>& notes) {
  const auto* ties = config_value(m, "tie_word_embeddings");
  const auto* flag = ties ? ties->get<bool>() : nullptr;
  if (!flag || !*flag) return {};
  constexpr std::string_view kOut[] = {"lm_head.weight", "embed_out.weight",
                                       "cls.predictions.decoder.weight"};
  constexpr std::string_view kIn[] = {"embed_tokens.weight", "wte.weight", "word_embeddings.weight",
                                      "embed_in.weight", "shared.weight"};
  const auto is_one_of = [](std::string_view name, std::span<const std::string_view> endings) {
    return std::any_of(endings.begin(), endings.end(), [name](std::string_view ending) {
      return name == ending || (name.size() > ending.size() && name.ends_with(ending) &&
                                name[name.size() - ending.size() - 1] == '.');
    });
  };
  // The name in the model decides (a renamed head may be the embeddings now); where that one says
  // nothing, the source's.
  const auto plays = [&](const Tensor& t, std::span<const std::string_view> part,
                         std::span<const std::string_view> other) {
    return is_one_of(t.target(), part) ||
           (!is_one_of(t.target(), other) && is_one_of(t.name, part));
  };
  const auto is_there = [&](uint64_t i) { return m.tensors[i].excluded.empty(); };
  std::optional<uint64_t> head, input;
  for (uint64_t i = 0; i < m.tensors.size() && !head; ++i) {
    if (plays(m.tensors[i], kOut, kIn)) head = i;
  }
  if (!head || !is_there(*head)) return {};
  for (uint64_t i = 0; i < m.tensors.size() && !input; ++i) {
    const Tensor &t = m.tensors[i], &like = m.tensors[*head];
    if (t.dtype != like.dtype || t.shape != like.shape) continue;  // of another part of the model
    if (plays(t, kIn, kOut)) input = i;
  }
  if (input) return {{{*input, *head}}};
  notes.push_back(cat("config.json ties the embeddings, but the source has ", m.tensors[*head].name,
                      " and no input embeddings of its shape: a job that ties them looks for the "
                      "input's name; rename it, as with --rename "
                      "'^lm_head=model.embed_tokens'."));
  return {};
}

}  // namespace crossdock::model
