// SPDX-License-Identifier: Apache-2.0

// The pickle machine: a stack, a memo and the opcodes of protocols 2 to 4. What they ask for the
// Builder makes. For one pickle, on one thread.
#pragma once

#include "plugins/torch/read/builder.h"

#include <vector>

namespace crossdock::torch_read {

class Machine {
 public:
  // The pickle that begins at `begin`.
  Machine(std::string_view bytes, uint64_t begin, const PickleRules& rules)
      : in_(as_bytes(bytes).subspan(begin)), begin_(begin), rules_(rules), build_(bytes, rules) {}

  Result<Pickle> run();

 private:
  // ---- the stack
  Result<void> push(Value v) {
    XD_TRY(build_.count_values(1));
    stack_.push_back(v);
    return {};
  }
  Result<void> push_number(Kind kind, int64_t number) {
    return push({kind, 0, static_cast<uint64_t>(number)});
  }

  // Values since the last mark may be taken, not those below it: they belong to a container
  // outside.
  size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }
  Result<Value> pop() {
    if (stack_.size() <= floor()) return corrupt("expected a value on the stack, found none");
    const Value out = stack_.back();
    stack_.pop_back();
    build_.forget_values(1);
    return out;
  }
  Result<Value> top() const {
    if (stack_.size() <= floor()) return corrupt("expected a value on the stack, found none");
    return stack_.back();
  }
  // The values above the last mark, which goes; they stay in place until drop().
  Result<std::span<const Value>> above_mark() {
    if (marks_.empty()) return corrupt("expected a mark on the stack, found none");
    const size_t begin = marks_.back();
    marks_.pop_back();
    return std::span<const Value>(stack_).subspan(begin);
  }
  void drop(size_t n) {
    stack_.resize(stack_.size() - n);
    build_.forget_values(n);
  }

  Result<void> push_container(Kind kind) {
    XD_TRY_SET(const Value v, build_.container(kind));
    return push(v);
  }
  Result<void> push_tuple_of(size_t n) {
    if (stack_.size() < floor() + n)
      return corrupt(cat("expected ", n, " values on the stack, found fewer"));
    XD_TRY_SET(const Value out, build_.tuple(std::span<const Value>(stack_).last(n)));
    drop(n);
    return push(out);
  }
  // A pickle is shorter than 4 GiB (kMaxPickleBytes and its like), so the cursor fails before a
  // length does not fit.
  Value take_text(uint64_t length, Kind kind) {
    const uint64_t place = begin_ + in_.offset();
    in_.take(length);
    return {kind, static_cast<uint32_t>(length), place};
  }
  Result<void> push_text(uint64_t length, Kind kind = Kind::kText) {
    return push(take_text(length, kind));
  }

  // Of tuples that hold themselves: the pickler takes back what it began.
  Result<void> pop_value_or_mark() {
    if (stack_.size() <= floor()) return pop_mark();
    XD_TRY(pop());
    return {};
  }
  Result<void> pop_mark() {
    XD_TRY_SET(const auto values, above_mark());
    drop(values.size());
    return {};
  }

  // ---- containers
  // APPENDS and SETITEMS: the container below the mark.
  template <class Fill>
  Result<void> fill_above_mark(Fill fill) {
    XD_TRY_SET(const auto values, above_mark());
    if (stack_.size() - values.size() <= floor())
      return corrupt("expected a container below the mark, found none");
    XD_TRY(fill(stack_[stack_.size() - values.size() - 1], values));
    drop(values.size());
    return {};
  }

  // ---- the memo
  Result<void> put(uint64_t index);
  Result<void> get(uint64_t index);

  // ---- globals
  Value line();
  Result<void> push_global();
  Result<void> stack_global();

  Result<void> persistent_id();
  Result<void> reduce();
  Result<void> new_object();
  Result<void> new_object_with_keywords();
  // OBJ, of Python 2's old classes: the class and its arguments above a mark.
  Result<void> old_object();
  // The attributes of an OrderedDict, a state dict's _metadata, which no tensor needs; or of an
  // opaque object.
  Result<void> build();

  Result<void> push_long(uint32_t n);

  // ---- one opcode. A cursor that has failed is noticed by the caller: what is pushed then is
  // never seen.
  Result<void> step(bool& stopped);
  Result<void> step_of_protocol_4(uint8_t code);
  Result<void> begin_pickle();

  Cursor in_;
  uint64_t begin_;
  const PickleRules rules_;
  Builder build_;
  Value root_;
  std::vector<Value> stack_, memo_;
  size_t n_memoised_ = 0;  // entries of the memo that are no gaps
  uint8_t protocol_ = 0;
  std::vector<size_t> marks_;
  size_t n_opcodes_ = 0;
};

Error ends_early();

}  // namespace crossdock::torch_read
