#include "plugins/reader_bin/state_dict.h"

#include "plugins/common/quote.h"

#include <algorithm>

namespace crossdock::reader_bin {

namespace {

using common::in_quotes;

constexpr std::string_view kModelKeys[] = {"state_dict", "model_state_dict", "model", "module"};

// Dicts may hold one another in circles, or one dict a thousand times: all walks are bounded in depth and in number.
class Walk {
 public:
  explicit Walk(const Pickle& pickle) : pickle_(pickle) {}

  std::vector<ModelTensor> tensors;
  std::vector<std::string> left_out;  // names of the first ones
  size_t n_left_out = 0;

  Result<void> dict(const Value& d, const std::string& prefix, int depth) {
    if (depth > kMaxNesting)
      return unsupported(cat("expected dicts at most ", kMaxNesting, " deep, found more at ", in_quotes(prefix)));
    const auto items = pickle_.items(d);
    for (size_t i = 0; i + 1 < items.size(); i += 2) {
      if (++n_entries_ > kMaxEntries) return unsupported(cat("expected at most ", kMaxEntries, " entries, found more"));
      XD_TRY(entry(items[i], items[i + 1], prefix, depth));
    }
    return {};
  }

  // Whether a tensor is anywhere in a value: the answer is no once a bound is met, where dict() then refuses.
  Result<bool> has_tensor(const Value& v, int depth = 1) {
    if (v.kind == Kind::kTensor) return true;
    const bool is_container = v.kind == Kind::kDict || v.kind == Kind::kList || v.kind == Kind::kTuple;
    if (!is_container) return false;
    if (depth > kMaxNesting) return unsupported(cat("expected values at most ", kMaxNesting, " deep, found more"));
    for (const Value& child : v.kind == Kind::kTuple ? pickle_.tuple(v) : pickle_.items(v)) {
      if (++n_entries_ > kMaxEntries) return unsupported(cat("expected at most ", kMaxEntries, " entries, found more"));
      XD_TRY_SET(const bool found, has_tensor(child, depth + 1));
      if (found) return true;
    }
    return false;
  }

 private:
  Result<void> entry(const Value& key, const Value& value, const std::string& prefix, int depth) {
    if (key.kind == Kind::kText) {
      const std::string name = cat(prefix, pickle_.text(key));
      if (value.kind == Kind::kTensor) {
        tensors.push_back({name, &pickle_.tensor(value)});
        return {};
      }
      if (value.kind == Kind::kDict) return dict(value, name + '.', depth + 1);
    }
    XD_TRY_SET(const bool loses, has_tensor(value, depth + 1));
    const std::string name =
        key.kind == Kind::kText ? cat(prefix, pickle_.text(key)) : cat(prefix, "<", name_of(key.kind), ">");
    if (loses && key.kind == Kind::kText) {
      return unsupported(cat("expected tensors in dicts only, found one in ", name_of(value.kind), " at ",
                             in_quotes(name), ": choose the model's dict with --state-dict-path"));
    }
    if (loses) {
      return unsupported(cat("expected tensors under names, found one under ", name_of(key.kind), " in ",
                             prefix.empty() ? "the dict" : in_quotes(prefix),
                             ": choose the model's dict with --state-dict-path"));
    }
    if (n_left_out++ < 3) left_out.push_back(name);
    return {};
  }

  const Pickle& pickle_;
  size_t n_entries_ = 0;
};

// The keys that are there: for messages.
std::string keys_of(const Pickle& pickle, const Value& dict) {
  constexpr size_t kMost = 8;
  std::string out;
  const auto items = pickle.items(dict);
  for (size_t i = 0; i + 1 < items.size() && i < 2 * kMost; i += 2) {
    if (items[i].kind == Kind::kText) out += cat(out.empty() ? "" : ", ", in_quotes(pickle.text(items[i])));
  }
  return out.empty() ? "no names" : out + (items.size() > 2 * kMost ? ", ..." : "");
}

// "a.b": the dict b of the dict a, or the one whose name is "a.b".
Result<Value> at_path(const Pickle& pickle, const std::string& path) {
  Value at = pickle.root();
  for (std::string_view rest = path; !rest.empty();) {
    if (at.kind != Kind::kDict)
      return invalid(cat("--state-dict-path: expected a dict before ", in_quotes(rest), ", found ", name_of(at.kind)));
    const Value* next = nullptr;
    size_t length = rest.size();
    for (; length != 0 && length != std::string_view::npos; length = rest.substr(0, length).rfind('.')) {
      if ((next = pickle.find(at, rest.substr(0, length)))) break;
    }
    if (!next) return invalid(cat("--state-dict-path: expected ", in_quotes(rest), ", found ", keys_of(pickle, at)));
    rest.remove_prefix(std::min(length + 1, rest.size()));
    at = *next;
  }
  if (at.kind != Kind::kDict)
    return invalid(cat("--state-dict-path: expected a dict at ", in_quotes(path), ", found ", name_of(at.kind)));
  return at;
}

bool holds_tensor_itself(const Pickle& pickle, const Value& dict) {
  const auto items = pickle.items(dict);
  for (size_t i = 0; i + 1 < items.size(); i += 2) {
    if (items[i + 1].kind == Kind::kTensor) return true;
  }
  return false;
}

Result<Value> choose(const Pickle& pickle) {
  const Value& root = pickle.root();
  if (root.kind != Kind::kDict) {
    return unsupported(
        cat("expected a dict of named tensors, found ", name_of(root.kind), ": save model.state_dict()"));
  }
  if (holds_tensor_itself(pickle, root)) return root;
  for (const std::string_view key : kModelKeys) {
    const Value* v = pickle.find(root, key);
    if (!v || v->kind != Kind::kDict) continue;
    XD_TRY_SET(const bool has, Walk(pickle).has_tensor(*v));
    if (has) return *v;
  }
  return root;
}

}  // namespace

Result<std::vector<ModelTensor>> find_model(const Host& host, const Pickle& pickle, const std::string& path) {
  XD_TRY_SET(const Value dict, path.empty() ? choose(pickle) : at_path(pickle, path));
  Walk walk(pickle);
  XD_TRY(walk.dict(dict, "", 1));
  if (walk.tensors.empty() && walk.n_left_out > 0) {
    return unsupported(cat("expected a dict of named tensors, found none in the one with ", keys_of(pickle, dict),
                           ": choose another with --state-dict-path"));
  }
  if (walk.n_left_out > 0) {
    std::string names;
    for (const std::string& name : walk.left_out) names += cat(names.empty() ? "" : ", ", in_quotes(name));
    host.log(XD_LOG_WARN, cat(walk.n_left_out, " entries of the state dict are no tensors and are left out: ", names,
                              walk.n_left_out > walk.left_out.size() ? ", ..." : ""));
  }
  return std::move(walk.tensors);
}

}  // namespace crossdock::reader_bin
