// SPDX-License-Identifier: Apache-2.0
#include "plugins/torch/read/tally.h"

namespace crossdock::torch_read {

Result<Tally> Counter::in(const Value& v) {
  Tally out;
  ++n_counts_;
  to_visit_.assign(1, v);
  while (!to_visit_.empty()) {
    if (++n_visits_ > kMaxVisits)
      return unsupported(cat("expected at most ", kMaxVisits, " values, found more"));
    const Value next = to_visit_.back();
    to_visit_.pop_back();
    visit(next, out);
  }
  return out;
}

bool is_name_of_parameter(std::string_view name) {
  return name.find('.') != std::string_view::npos || name == "weight" || name == "bias" ||
         name.starts_with("weight_") || name.starts_with("bias_");
}

void Counter::visit(const Value& v, Tally& tally) {
  const bool stands_for_tensor = v.kind == Kind::kOpaque && v.length != 0;
  if (v.kind == Kind::kTensor || v.kind == Kind::kStorage || stands_for_tensor) ++tally.n_tensors;
  if (v.kind == Kind::kTensor) tally.n_elems += pickle_.tensor(v).n_elems();
  if (v.kind == Kind::kTuple) {
    const auto values = pickle_.tuple(v);
    to_visit_.insert(to_visit_.end(), values.begin(), values.end());
  }
  if (v.kind != Kind::kList && v.kind != Kind::kDict && v.kind != Kind::kOpaque) return;
  if (std::exchange(seen_[v.data], n_counts_) == n_counts_) return;
  const auto values = pickle_.items(v);
  to_visit_.insert(to_visit_.end(), values.begin(), values.end());
  for (size_t i = 0; v.kind == Kind::kDict && i + 1 < values.size(); i += 2) {
    const bool is_named_tensor =
        values[i].kind == Kind::kText && values[i + 1].kind == Kind::kTensor;
    if (is_named_tensor && is_name_of_parameter(key_of(pickle_, values[i]))) ++tally.n_parameters;
  }
}

}  // namespace crossdock::torch_read
