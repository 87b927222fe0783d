// SPDX-License-Identifier: Apache-2.0

// Values of classes that we do not know: their names, and what they were made of, so that no tensor
// in them goes unnoticed.
#include "plugins/common/quote.h"
#include "plugins/torch/read/builder.h"
#include "plugins/torch/read/globals.h"

namespace crossdock::torch_read {

using common::in_quotes;

Result<Value> Builder::global(const Value& module, const Value& name) {
  const std::string_view in = out_.text(module), what = out_.text(name);
  const auto known = find_global(in, what);
  if (known)
    return Value{Kind::kGlobal, static_cast<uint32_t>(known->dtype),
                 static_cast<uint64_t>(known->what)};
  if (is_attack(in, what))
    return unsupported(cat(
        "expected what a checkpoint is made of, found the global ", in_quotes(cat(in, '.', what)),
        ", which none has a use for: nothing was run, and the file is most likely made to attack "
        "whoever loads it"));
  return opaque(module, name, {}, holds_values(in, what));
}

Result<Value> Builder::opaque(const Value& module, const Value& name,
                              std::initializer_list<Value> parts, bool holds_values) {
  XD_TRY(count_values(2 + parts.size()));
  XD_TRY_SET(Value out, container(Kind::kOpaque));
  out.length = holds_values;
  auto& all = out_.containers_[out.data];
  all.reserve(2 + parts.size());
  all.insert(all.end(), {module, name});
  all.insert(all.end(), parts);
  return out;
}

Result<Value> Builder::opaque_of(const Value& named, std::initializer_list<Value> parts,
                                 bool holds_values) {
  const Value module = out_.items(named)[0], name = out_.items(named)[1];
  return opaque(module, name, parts, holds_values || named.length != 0);
}

Result<Value> Builder::call_of_opaque(const Value& function, const Value& arguments) {
  const auto args = out_.tuple(arguments);
  const auto names = out_.items(function);
  const bool names_first = args.size() > 0 && args[0].kind == Kind::kOpaque &&
                           is_of_its_argument(out_.text(names[0]), out_.text(names[1]));
  return opaque_of(names_first ? args[0] : function, {function, arguments}, function.length != 0);
}

Result<Value> Builder::instance(const Value& type, const Value& arguments) {
  if (type.kind == Kind::kOpaque && arguments.kind == Kind::kTuple)
    return call_of_opaque(type, arguments);
  return unsupported(cat("expected an object of a class with a tuple of arguments, found one of ",
                         name_of(type.kind), " with ", name_of(arguments.kind),
                         ": nothing was run"));
}

}  // namespace crossdock::torch_read
