// SPDX-License-Identifier: Apache-2.0
#include "plugins/reader_bin/state_dict.h"

#include "plugins/common/quote.h"
#include "plugins/reader_bin/choose.h"
#include "plugins/torch/read/tally.h"

#include <algorithm>

namespace crossdock::reader_bin {

namespace {

using common::in_quotes;
using torch_read::Counter;
using torch_read::Kind;
using torch_read::kMaxEntries;
using torch_read::name_of;
using torch_read::Tally;
using torch_read::Value;

// Dicts may hold one another in circles, or one dict a thousand times: all walks are bounded in
// depth and in number.
class Walk {
 public:
  explicit Walk(const Pickle& pickle) : pickle_(pickle), counter_(pickle) {}

  std::vector<ModelTensor> tensors;
  std::vector<std::string> excluded;  // names of the first ones
  size_t n_left_out = 0;

  Result<void> all_of(const Choice& choice) {
    const auto items = pickle_.items(choice.dict);
    size_t n_skipped = 0;
    for (size_t i = 0; i + 1 < items.size(); i += 2) {
      const bool skipped =
          n_skipped < choice.not_of_model.size() && choice.not_of_model[n_skipped] == &items[i + 1];
      if (skipped) ++n_skipped;
      if (!skipped) XD_TRY(entry(items[i], items[i + 1], "", 1));
    }
    return {};
  }

 private:
  Result<void> dict(const Value& d, const std::string& prefix, int depth) {
    if (depth > kMaxNesting)
      return unsupported(
          cat("expected dicts at most ", kMaxNesting, " deep, found more at ", in_quotes(prefix)));
    const auto items = pickle_.items(d);
    for (size_t i = 0; i + 1 < items.size(); i += 2) {
      XD_TRY(entry(items[i], items[i + 1], prefix, depth));
    }
    return {};
  }

  Result<void> entry(const Value& key, const Value& value, const std::string& prefix, int depth) {
    if (++n_entries_ > kMaxEntries)
      return unsupported(cat("expected at most ", kMaxEntries, " entries, found more"));
    n_name_bytes_ += prefix.size() + (key.kind == Kind::kText ? key.length : 0);
    if (n_name_bytes_ > kMaxNameBytes)
      return unsupported(
          cat("expected names of at most ", kMaxNameBytes, " bytes in all, found more"));
    if (key.kind == Kind::kText) {
      const std::string name = cat(prefix, pickle_.text(key));
      if (value.kind == Kind::kTensor) {
        tensors.push_back({name, &pickle_.tensor(value)});
        return {};
      }
      if (value.kind == Kind::kDict) return dict(value, name + '.', depth + 1);
    }
    XD_TRY_SET(const Tally tally, counter_.in(value));
    XD_TRY_SET(const Tally in_key, counter_.in(key));
    const bool loses = tally.n_tensors > 0 || in_key.n_tensors > 0;
    const std::string name = key.kind == Kind::kText ? cat(prefix, pickle_.text(key))
                                                     : cat(prefix, "<", name_of(key.kind), ">");
    if (tally.n_tensors > 0 && value.kind == Kind::kOpaque) {
      return unsupported(cat("expected plain tensors and values at ", in_quotes(name), ", found ",
                             describe_opaque(pickle_, value)));
    }
    if (loses && key.kind == Kind::kText) {
      return unsupported(cat("expected tensors in dicts only, found one in ", name_of(value.kind),
                             " at ", in_quotes(name),
                             ": choose the model's dict with --state-dict-path"));
    }
    if (loses) {
      return unsupported(cat("expected tensors under names, found one under ", name_of(key.kind),
                             " in ", prefix.empty() ? "the dict" : in_quotes(prefix),
                             ": choose the model's dict with --state-dict-path"));
    }
    if (n_left_out++ < 3) excluded.push_back(name);
    return {};
  }

  const Pickle& pickle_;
  Counter counter_;
  size_t n_entries_ = 0, n_name_bytes_ = 0;
};

// A number among the settings of a training loop, which are a dict or an object
// (argparse.Namespace); else 1.
int64_t setting(const Pickle& pickle, const Value& settings, std::string_view key) {
  if (settings.kind == Kind::kOpaque) {
    const Value* attributes = pickle.attributes_of(settings);
    return attributes ? setting(pickle, *attributes, key) : 1;
  }
  const Value* v = settings.kind == Kind::kDict ? pickle.find(settings, key) : nullptr;
  return v && v->kind == Kind::kInt ? static_cast<int64_t>(v->data) : 1;
}

// DeepSpeed's mp_rank_00_model_states.pt and Megatron's mp_rank_00/model_optim_rng.pt say so when
// they are parts.
Result<void> check_whole(const Pickle& pickle) {
  const Value& root = pickle.root();
  const Value* args = root.kind == Kind::kDict ? pickle.find(root, "args") : nullptr;
  const auto check = [&](const Value& settings, std::string_view key) -> Result<void> {
    const int64_t n_parts = setting(pickle, settings, key);
    if (n_parts <= 1) return {};
    return unsupported(cat("expected a whole model, found one of its ", n_parts,
                           " model-parallel parts (", key,
                           "): save it with a model-parallel size of 1"));
  };
  XD_TRY(check(root, "mp_world_size"));
  const Value* experts = root.kind == Kind::kDict ? pickle.find(root, "num_experts") : nullptr;
  const bool has_experts =
      experts && experts->kind == Kind::kList &&
      std::any_of(pickle.items(*experts).begin(), pickle.items(*experts).end(), [](const Value& v) {
        return v.kind == Kind::kInt && static_cast<int64_t>(v.data) > 1;
      });
  if (has_experts) {
    return unsupported(
        "expected a whole model, found DeepSpeed's states of one whose experts lie in files of "
        "their own "
        "(num_experts): put them together with the program that saved them");
  }
  for (const std::string_view key :
       {"tensor_model_parallel_size", "pipeline_model_parallel_size"}) {
    if (args) XD_TRY(check(*args, key));
  }
  return {};
}

void note_left_out(const Host& host, const Choice& choice) {
  if (choice.excluded.empty()) return;
  host.log(XD_LOG_WARN, cat(choice.path.empty() ? "the top level" : in_quotes(choice.path),
                            " is taken as the model, and not what lies beside it: ",
                            choice.excluded, "; --state-dict-path chooses another"));
}

}  // namespace

Result<std::vector<ModelTensor>> find_model(const Host& host, const Pickle& pickle,
                                            const std::string& path) {
  XD_TRY(check_whole(pickle));
  XD_TRY_SET(const Choice choice, path.empty() ? choose_model(pickle) : model_at(pickle, path));
  Walk walk(pickle);
  XD_TRY(walk.all_of(choice));
  if (walk.tensors.empty() && walk.n_left_out + choice.not_of_model.size() > 0) {
    return unsupported(cat("expected a dict of named tensors, found none in the one with ",
                           keys_of(pickle, choice.dict),
                           ": choose another with --state-dict-path"));
  }
  if (walk.n_left_out > 0) {
    std::string names;
    for (const std::string& name : walk.excluded)
      names += cat(names.empty() ? "" : ", ", in_quotes(name));
    host.log(XD_LOG_WARN, cat(walk.n_left_out,
                              " entries of the state dict are no tensors and are left out: ", names,
                              walk.n_left_out > walk.excluded.size() ? ", ..." : ""));
  }
  note_left_out(host, choice);
  return std::move(walk.tensors);
}

}  // namespace crossdock::reader_bin
