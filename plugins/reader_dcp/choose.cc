// SPDX-License-Identifier: Apache-2.0
#include "plugins/reader_dcp/choose.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <span>

#include "plugins/common/quote.h"
#include "plugins/common/state_dict_keys.h"

namespace crossdock::reader_dcp {
namespace {

using common::in_quotes;

constexpr size_t kMaxNamed = 6;  // in messages

std::string joined(std::span<const std::string> keys) {
  std::string out;
  for (const std::string& key : keys) out += cat(out.empty() ? "" : ".", key);
  return out;
}

// What lies below an optimizer's key: "state.NAME.exp_avg". In a name that no keys are known of,
// the optimizer's key is one that "state" or "param_groups" follows.
std::optional<std::string> below_optimizer(const Entry& entry) {
  for (size_t i = 0; i + 1 < entry.path.size(); ++i) {
    if (common::is_optimizer_key(entry.path[i]))
      return joined(std::span(entry.path).subspan(i + 1));
  }
  if (entry.path.size() > 1) return std::nullopt;
  const std::string_view name = entry.name;
  for (size_t begin = 0; begin < name.size();) {
    const size_t dot = std::min(name.find('.', begin), name.size());
    const std::string_view rest = name.substr(std::min(dot + 1, name.size()));
    if (common::is_optimizer_key(name.substr(begin, dot - begin)) &&
        (rest.starts_with("state.") || rest.starts_with("param_groups.")))
      return std::string(rest);
    begin = dot + 1;
  }
  return std::nullopt;
}

// Tensors of which some first keys are taken off.
class Level {
 public:
  Level(const std::vector<TensorEntry>& tensors, std::vector<size_t> members, size_t depth)
      : tensors_(tensors), members_(std::move(members)), depth_(depth) {}

  Result<Choice> choose() && {
    Groups groups;
    bool has_tensors = false;
    for (const size_t i : members_) {
      const auto& path = tensors_[i].path;
      if (path.size() <= depth_ + 1) {
        has_tensors = true;
      } else {
        groups[path[depth_]].push_back(i);
      }
    }
    std::vector<std::string_view> models, wrappers;
    for (const auto& [key, group] : groups) {
      if (common::is_model_key(key)) models.push_back(key);
      if (common::is_wrapper_key(key)) wrappers.push_back(key);
    }
    const bool has_average =
        std::ranges::any_of(groups, [](auto& g) { return common::is_average_key(g.first); });
    // A tensor here, so no dicts around the model; but with one that looks like it nothing tells.
    if (has_tensors)
      return models.empty() && !has_average ? Result<Choice>(all()) : unclear(groups);
    if (models.size() == 1) return enter(groups, models[0]);
    if (models.empty() && wrappers.size() == 1 && groups.size() == 1)
      return enter(groups, wrappers[0]);
    if (models.empty() && wrappers.empty() && !has_average) return all();
    return unclear(groups);
  }

  Choice all() const {
    Choice out;
    for (const size_t i : members_)
      out.model.push_back({i, joined(std::span(tensors_[i].path).subspan(depth_))});
    return out;
  }

 private:
  using Groups = std::map<std::string_view, std::vector<size_t>>;

  Result<Choice> enter(const Groups& groups, std::string_view key) const {
    XD_TRY_SET(Choice out, Level(tensors_, groups.at(key), depth_ + 1).choose());
    for (const auto& [other, group] : groups) {
      if (other == key) continue;
      for (const size_t i : group) out.left_out.push_back(tensors_[i].name);
    }
    return out;
  }

  Error unclear(const Groups& groups) const {
    std::string keys;
    size_t n = 0;
    for (const auto& [key, group] : groups) {
      if (n++ < kMaxNamed)
        keys += cat(keys.empty() ? "" : ", ", in_quotes(key), " (", group.size(), " tensors)");
    }
    if (n > kMaxNamed) keys += cat(" and ", n - kMaxNamed, " more");
    return unsupported(cat("expected one dict that is clearly the model, found ", keys,
                           ": choose it by its keys with --state-dict-path NAME, or all of the top "
                           "level with --state-dict-path ."));
  }

  const std::vector<TensorEntry>& tensors_;
  const std::vector<size_t> members_;
  const size_t depth_;
};

// The tensors below these keys; by their names where no keys are known.
Result<Choice> below(const std::vector<TensorEntry>& tensors, const std::string& keys) {
  Choice out;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const std::string& name = tensors[i].name;
    const bool is_below =
        name.size() > keys.size() && name.starts_with(keys) && name[keys.size()] == '.';
    if (is_below) {
      out.model.push_back({i, name.substr(keys.size() + 1)});
    } else if (!is_of_optimizer(tensors[i])) {
      out.left_out.push_back(name);
    }
  }
  if (!out.model.empty()) return out;
  return invalid(
      cat("--state-dict-path: expected the keys of a dict of tensors, found none below ",
          in_quotes(keys),
          tensors.empty() ? "" : cat("; one of the names is ", in_quotes(tensors[0].name))));
}

}  // namespace

std::optional<State> optimizer_state(const Entry& entry) {
  const auto below = below_optimizer(entry);
  constexpr std::string_view kState = "state.";
  if (!below || !below->starts_with(kState)) return std::nullopt;
  const size_t dot = below->rfind('.');
  if (dot < kState.size()) return std::nullopt;
  return State{below->substr(kState.size(), dot - kState.size()), below->substr(dot + 1)};
}

std::optional<Setting> group_setting(const Entry& entry) {
  const auto below = below_optimizer(entry);
  constexpr std::string_view kGroups = "param_groups.";
  if (!below || !below->starts_with(kGroups)) return std::nullopt;
  const std::string_view rest = std::string_view(*below).substr(kGroups.size());
  Setting out;
  const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), out.group);
  const auto key = rest.substr(static_cast<size_t>(end - rest.data()));
  if (error != std::errc() || !key.starts_with('.')) return std::nullopt;
  out.key = key.substr(1);
  return out;
}

bool is_of_optimizer(const Entry& entry) { return below_optimizer(entry).has_value(); }

Result<Choice> choose_model(const std::vector<TensorEntry>& tensors, const std::string& wanted) {
  if (!wanted.empty() && wanted != ".") return below(tensors, wanted);
  std::vector<size_t> members;
  std::vector<std::string> beside;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const Entry& entry = tensors[i];
    if (is_of_optimizer(entry)) continue;
    // Settings and losses have tensors too: {"loss_fn": {"weight": ...}}.
    const bool is_beside =
        wanted.empty() && entry.path.size() > 1 && common::is_key_beside_model(entry.path[0]);
    if (is_beside) {
      beside.push_back(entry.name);
    } else {
      members.push_back(i);
    }
  }
  Level top(tensors, std::move(members), 0);
  auto out = wanted == "." ? Result<Choice>(top.all()) : std::move(top).choose();
  if (out) out->left_out.insert(out->left_out.end(), beside.begin(), beside.end());
  return out;
}

}  // namespace crossdock::reader_dcp
