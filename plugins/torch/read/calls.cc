// SPDX-License-Identifier: Apache-2.0

// What the calls of a pickle give: each is one of the few that plain values and tensors need.
#include "plugins/torch/read/builder.h"

#include <algorithm>

namespace crossdock::torch_read {

using manifest::DType;

// (function, class, its arguments, the attributes): a tensor with Python attributes, which we
// leave, or of another class, whose values may be anything.
Result<Value> Builder::from_type(const Value& arguments, bool nested) {
  const auto args = out_.tuple(arguments);
  if (nested) return corrupt("expected a tensor to rebuild, found a rebuilding of a rebuilding");
  if (args[1].kind == Kind::kOpaque) return opaque_of(args[1], {arguments}, true);
  if (args[0].kind == Kind::kOpaque) return opaque_of(args[0], {arguments}, true);
  if (!is_global(args[1], Global::kTensor) && !is_global(args[1], Global::kParameter))
    return unsupported("expected a plain tensor, found another class of tensor");
  return call(args[0], args[2], true);
}

Result<Value> Builder::call(const Value& function, const Value& arguments, bool nested) {
  if (function.kind != Kind::kGlobal && function.kind != Kind::kOpaque)
    return corrupt(cat("expected a function to call, found ", name_of(function.kind)));
  if (arguments.kind != Kind::kTuple)
    return corrupt(cat("expected a tuple of arguments, found ", name_of(arguments.kind)));
  if (function.kind == Kind::kOpaque) return call_of_opaque(function, arguments);
  const auto args = out_.tuple(arguments);
  const auto wants = [&](size_t least, size_t most) -> Result<void> {
    if (args.size() >= least && args.size() <= most) return {};
    return corrupt(cat("expected ", least, " to ", most, " arguments, found ", args.size()));
  };
  const auto what = static_cast<Global>(function.data);
  if (what >= Global::kRebuildTensor && what <= Global::kFromCpuTensor) {
    // Of a storage or dtype that we do not know, or of a tensor of an unknown class.
    const auto unknown = std::find_if(args.begin(), args.end(),
                                      [](const Value& v) { return v.kind == Kind::kOpaque; });
    if (unknown != args.end()) return opaque_of(*unknown, {arguments}, true);
  }
  switch (what) {
    case Global::kOrderedDict:
    case Global::kCounter:
      XD_TRY(wants(0, 1));
      return dict_of(args);
    case Global::kDefaultDict:
      XD_TRY(wants(0, 2));
      return dict_of(args.empty() ? args : args.subspan(1));
    case Global::kSet:  // as the list of its values
      if (args.size() == 1 && args[0].kind == Kind::kList) return args[0];
      return Value{Kind::kOther, 0, 0};
    case Global::kSize:
      XD_TRY(wants(1, 1));
      if (args[0].kind == Kind::kTuple) return args[0];
      return corrupt(cat("expected a tuple in torch.Size, found ", name_of(args[0].kind)));
    case Global::kEncode:
    case Global::kBytearray:
    case Global::kComplex:
    case Global::kDevice:
    case Global::kGetLayout:
      return Value{Kind::kOther, 0, 0};
    case Global::kRebuildTensor:
      XD_TRY(wants(4, 4));
      return rebuild_tensor(args, DType::UNSPECIFIED);
    case Global::kRebuildTensorV2:
      XD_TRY(wants(6, 7));
      XD_TRY(check_metadata(args, 6));
      return rebuild_tensor(args, DType::UNSPECIFIED);
    case Global::kRebuildTensorV3:
      XD_TRY(wants(7, 8));
      XD_TRY(check_metadata(args, 7));
      if (!is_global(args[6], Global::kDType))
        return corrupt(cat("expected a dtype, found ", name_of(args[6].kind)));
      return rebuild_tensor(args, static_cast<DType>(args[6].length));
    case Global::kRebuildParameter:
      XD_TRY(wants(3, 3));
      return parameter(args);
    case Global::kRebuildParameterWithState:
      XD_TRY(wants(4, 4));
      return parameter(args);
    case Global::kFromCpuTensor:
      XD_TRY(wants(4, 4));
      return from_cpu_tensor(args);
    case Global::kRebuildFromType:
      XD_TRY(wants(4, 4));
      return from_type(arguments, nested);
    case Global::kTensor:
    case Global::kParameter:
    case Global::kStorage:
    case Global::kDType:
      break;
  }
  return unsupported(
      "expected a call that makes a plain value or tensor, found a call of a class: nothing was "
      "run");
}

// OrderedDict(), or OrderedDict([[key, value], ...]) as Python 2 wrote it.
Result<Value> Builder::dict_of(std::span<const Value> args) {
  XD_TRY_SET(const Value dict, container(Kind::kDict));
  if (args.empty()) return dict;
  if (args[0].kind == Kind::kDict) {
    const auto items = out_.containers_[args[0].data];
    XD_TRY(set_items(dict, items));
    return dict;
  }
  if (args[0].kind != Kind::kList)
    return corrupt(cat("expected a list of pairs, found ", name_of(args[0].kind)));
  const auto pairs = out_.containers_[args[0].data];
  for (const Value& pair : pairs) {
    const bool is_list = pair.kind == Kind::kList;
    if (!is_list && pair.kind != Kind::kTuple)
      return corrupt(cat("expected a pair, found ", name_of(pair.kind)));
    const auto both =
        is_list ? std::span<const Value>(out_.containers_[pair.data]) : out_.tuple(pair);
    if (both.size() != 2)
      return corrupt(cat("expected a key and a value, found ", both.size(), " values"));
    const Value two[] = {both[0], both[1]};
    XD_TRY(set_items(dict, two));
  }
  return dict;
}

}  // namespace crossdock::torch_read
