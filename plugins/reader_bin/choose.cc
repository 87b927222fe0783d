// SPDX-License-Identifier: Apache-2.0
#include "plugins/reader_bin/choose.h"

#include "plugins/common/quote.h"
#include "plugins/common/state_dict_keys.h"
#include "plugins/torch/read/globals.h"
#include "plugins/torch/read/tally.h"

#include <algorithm>

namespace crossdock::reader_bin {

namespace {

using common::in_quotes;
using torch_read::advice_on;
using torch_read::Counter;
using torch_read::is_name_of_parameter;
using torch_read::key_of;
using torch_read::Kind;
using torch_read::kMaxEntries;
using torch_read::name_of;
using torch_read::Tally;

constexpr int kMaxWrappers = 2;
constexpr size_t kMaxNamed = 6;  // in messages

bool is_optimizer_state(const Pickle& pickle, const Value& v) {
  return v.kind == Kind::kDict && pickle.find(v, "state") && pickle.find(v, "param_groups");
}

struct Entry {
  std::string_view key;
  const Value* value;
  Tally tally;
};

// The entries of one dict, sorted by what they can be.
class Level {
 public:
  Level(const Pickle& pickle, Counter& counter, std::string prefix)
      : pickle_(pickle), counter_(counter), prefix_(std::move(prefix)) {}

  Result<Choice> choose(const Value& dict, int depth) {
    XD_TRY(look_at(dict));
    if (has_parameters_ && models_.empty() && averages_.empty()) return whole(dict);
    if (has_parameters_) return unclear();
    const auto& first = models_.empty() ? averages_ : models_;
    if (models_.empty() && model_object_) return is_object(*model_object_);
    if (models_.empty() && !first.empty() && has_matrix_)
      return unclear();  // the model may be the top level itself
    if (first.size() == 1 && others_.empty())
      return has_state_dict(first[0]) ? enter(first[0], depth) : take(first[0]);
    if (!first.empty() || !others_.empty()) return unclear();
    if (wrappers_.size() == 1 && n_dicts_ == 1) return enter(wrappers_[0], depth);
    if (n_dicts_ > 0) return unclear();
    return whole(dict);
  }

 private:
  // Or several optimizers' states in one value.
  bool is_optimizer(std::string_view key, const Value& v) const {
    if (is_optimizer_state(pickle_, v)) return true;
    return v.kind != Kind::kTensor && common::is_optimizer_key(key);
  }

  bool holds_parameters(const Value& dict) const {
    const auto items = pickle_.items(dict);
    for (size_t i = 0; i + 1 < items.size(); i += 2) {
      if (items[i].kind == Kind::kText && items[i + 1].kind == Kind::kTensor &&
          is_name_of_parameter(key_of(pickle_, items[i])))
        return true;
    }
    return false;
  }

  Result<void> look_at(const Value& dict) {
    has_parameters_ = holds_parameters(dict);
    const auto items = pickle_.items(dict);
    if (items.size() / 2 > kMaxEntries)
      return unsupported(cat("expected at most ", kMaxEntries, " entries, found more"));
    for (size_t i = 0; i + 1 < items.size(); i += 2) {
      const Value& v = items[i + 1];
      XD_TRY_SET(const Tally tally, counter_.in(v));
      const Entry entry{items[i].kind == Kind::kText ? key_of(pickle_, items[i]) : "?", &v, tally};
      if (tally.n_tensors > 0 || v.kind == Kind::kOpaque) beside_.push_back(entry);
      has_matrix_ = has_matrix_ || (v.kind == Kind::kTensor && pickle_.tensor(v).shape.size() >= 2);
      if (items[i].kind == Kind::kText && tally.n_tensors > 0) sort_in(entry);
    }
    return {};
  }

  void sort_in(const Entry& e) {
    if (is_optimizer(e.key, *e.value)) return optimizers_.push_back(e.value);
    if (e.value->kind == Kind::kOpaque && common::is_model_key(e.key) && !model_object_)
      model_object_ = e;
    if (e.value->kind != Kind::kDict) return;
    ++n_dicts_;
    if (common::is_model_key(e.key)) {
      const auto is_same = [&](const Entry& other) { return other.value->data == e.value->data; };
      // Two are as unclear as a million.
      if (models_.size() < 2 && std::none_of(models_.begin(), models_.end(), is_same))
        models_.push_back(e);
    } else if (common::is_average_key(e.key)) {
      averages_.push_back(e);
    } else if (common::is_wrapper_key(e.key)) {
      wrappers_.push_back(e);
    } else if (!common::is_key_beside_model(e.key) && e.tally.n_parameters > 0) {
      others_.push_back(e);
    }
  }

  // {"model": {"state_dict": ...}}, {"state_dict": {"model": ..., "ema": ...}}: a dict without
  // parameters of its own around the model's.
  bool has_state_dict(const Entry& e) const {
    constexpr std::string_view kInner[] = {"state_dict", "model_state_dict", "model"};
    const auto is_dict = [&](std::string_view key) {
      const Value* v = pickle_.find(*e.value, key);
      return v && v->kind == Kind::kDict;
    };
    return is_dict(kInner[0]) || (!holds_parameters(*e.value) &&
                                  std::any_of(std::begin(kInner), std::end(kInner), is_dict));
  }
  // A dict around the model's.
  Result<Choice> enter(const Entry& e, int depth) {
    if (depth == kMaxWrappers) return unclear();
    XD_TRY_SET(Choice out,
               Level(pickle_, counter_, cat(prefix_, e.key, '.')).choose(*e.value, depth + 1));
    if (out.path.empty() && !holds_parameters(*e.value)) return unclear();
    if (out.path.empty()) out.path = cat(prefix_, e.key);
    name_left_out(out.excluded, e.value);
    return out;
  }
  Choice take(const Entry& e) const {
    Choice out{*e.value, cat(prefix_, e.key), {}, {}};
    name_left_out(out.excluded, e.value);
    return out;
  }
  // But for optimizers' states.
  Choice whole(const Value& dict) const {
    Choice out{dict, "", optimizers_, {}};
    for (size_t i = 0; i < std::min(optimizers_.size(), kMaxNamed); ++i) {
      const auto it = std::find_if(beside_.begin(), beside_.end(),
                                   [&](auto& e) { return e.value == optimizers_[i]; });
      add_name(out.excluded, *it);
    }
    return out;
  }

  void add_name(std::string& names, const Entry& e) const {
    names += cat(names.empty() ? "" : ", ", in_quotes(cat(prefix_, e.key)), " (");
    if (e.value->kind == Kind::kOpaque) {
      names += in_quotes(pickle_.class_of(*e.value));
    } else if (e.value->kind == Kind::kTensor) {
      names += "a tensor";
    } else {
      names += cat(e.tally.n_tensors, " tensors, ", e.tally.n_elems, " elements");
    }
    names += ")";
  }
  void name_left_out(std::string& names, const Value* model) const {
    size_t n = 0;
    for (const Entry& e : beside_) {
      const bool is_same =
          e.value->kind == Kind::kDict && e.value->data == model->data;  // or under a second key
      if (e.value == model || is_same) continue;
      if (++n <= kMaxNamed) add_name(names, e);
    }
    if (n > kMaxNamed) names += cat(" and ", n - kMaxNamed, " more");
  }

  Error unclear() const {
    std::string names;
    size_t n_named = 0, n_tensors = 0;
    for (const Entry& e : beside_) {
      if (e.value->kind == Kind::kTensor) ++n_tensors;
      if (e.value->kind == Kind::kDict && e.tally.n_tensors > 0 && !is_optimizer(e.key, *e.value) &&
          ++n_named <= kMaxNamed)
        add_name(names, e);
    }
    if (n_named > kMaxNamed) names += cat(" and ", n_named - kMaxNamed, " more");
    if (n_tensors > 0) names += cat(" beside ", n_tensors, n_tensors == 1 ? " tensor" : " tensors");
    return unsupported(
        cat("expected one dict that is clearly the model, found ", names,
            ": choose it by name with --state-dict-path NAME, or all of the top level with "
            "--state-dict-path ."));
  }

  Error is_object(const Entry& e) const {
    return unsupported(cat("expected a dict of tensors at ", in_quotes(cat(prefix_, e.key)),
                           ", found ", describe_opaque(pickle_, *e.value)));
  }

  const Pickle& pickle_;
  Counter& counter_;
  const std::string prefix_;
  bool has_parameters_ = false;  // tensors under names of parameters, in the dict itself
  bool has_matrix_ = false;      // a tensor of two or more dimensions, in the dict itself
  size_t n_dicts_ = 0;           // with tensors
  std::vector<Entry> models_, averages_, wrappers_, others_;
  std::vector<Entry> beside_;  // all with tensors, and all opaque ones
  std::vector<const Value*> optimizers_;
  std::optional<Entry> model_object_;
};

}  // namespace

std::string keys_of(const Pickle& pickle, const Value& dict) {
  constexpr size_t kMax = 8;
  std::string out;
  const auto items = pickle.items(dict);
  for (size_t i = 0; i + 1 < items.size() && i < 2 * kMax; i += 2) {
    if (items[i].kind == Kind::kText)
      out += cat(out.empty() ? "" : ", ", in_quotes(pickle.text(items[i])));
  }
  return out.empty() ? "no names" : out + (items.size() > 2 * kMax ? ", ..." : "");
}

std::string describe_opaque(const Pickle& pickle, const Value& opaque) {
  const auto names = pickle.items(opaque);
  const std::string_view advice = advice_on(pickle.text(names[0]), pickle.text(names[1]));
  const std::string what = in_quotes(pickle.class_of(opaque));
  if (!advice.empty()) return cat(what, ", ", advice);
  return cat("an object of the class ", what,
             ", of which nothing was run: load the file in Python and save the model's "
             "state_dict() alone");
}

Result<Choice> choose_model(const Pickle& pickle) {
  const Value& root = pickle.root();
  if (root.kind == Kind::kOpaque)
    return unsupported(
        cat("expected a dict of named tensors, found ", describe_opaque(pickle, root)));
  if (root.kind != Kind::kDict)
    return unsupported(cat("expected a dict of named tensors, found ", name_of(root.kind),
                           ": save model.state_dict()"));
  if (is_optimizer_state(pickle, root))
    return unsupported(
        "expected a model, found the state of an optimizer: name the file with the weights");
  Counter counter(pickle);
  return Level(pickle, counter, "").choose(root, 0);
}

Result<Choice> model_at(const Pickle& pickle, const std::string& path) {
  Value at = pickle.root();
  for (std::string_view rest = path == "." ? std::string_view() : path; !rest.empty();) {
    if (at.kind != Kind::kDict)
      return invalid(cat("--state-dict-path: expected a dict before ", in_quotes(rest), ", found ",
                         name_of(at.kind)));
    const Value* next = nullptr;
    size_t length = rest.size();
    for (; length != 0 && length != std::string_view::npos;
         length = rest.substr(0, length).rfind('.')) {
      if ((next = pickle.find(at, rest.substr(0, length)))) break;
    }
    if (!next)
      return invalid(
          cat("--state-dict-path: expected ", in_quotes(rest), ", found ", keys_of(pickle, at)));
    rest.remove_prefix(std::min(length + 1, rest.size()));
    at = *next;
  }
  if (at.kind != Kind::kDict)
    return invalid(cat(
        "--state-dict-path: expected a dict at ", in_quotes(path), ", found ",
        at.kind == Kind::kOpaque ? describe_opaque(pickle, at) : std::string(name_of(at.kind))));
  return Choice{at, path, {}, {}};
}

}  // namespace crossdock::reader_bin
