// SPDX-License-Identifier: Apache-2.0
#include "plugins/torch/read/machine.h"

#include "plugins/torch/read/opcodes.h"

#include <cstring>

namespace crossdock::torch_read {

Error ends_early() {
  return {XD_OUT_OF_RANGE, "expected more of the pickle, found its end: the file is cut off"};
}

Result<Pickle> Machine::run() {
  uint64_t place = begin_;
  for (bool stopped = false; !stopped;) {
    place = begin_ + in_.offset();
    auto done = step(stopped);
    if (in_.failed()) return ends_early().in(cat("byte ", place));
    if (!done) return std::move(done).error().in(cat("byte ", place));
  }
  return std::move(build_).finish(root_, begin_ + in_.offset());
}

Result<void> Machine::put(uint64_t index) {
  XD_TRY_SET(const Value v, top());
  // Picklers number their memo from 0 on (Python 2 from 1); a file that skips far ahead wants our
  // memory.
  constexpr uint64_t kMaxGap = 4096;
  if (index > memo_.size() + kMaxGap)
    return corrupt(cat("expected memo ", memo_.size(), " next, found ", index));
  if (index >= memo_.size()) {
    XD_TRY(build_.count_values(index + 1 - memo_.size()));
    memo_.resize(index + 1, Value{Kind::kNothing});
  }
  if (memo_[index].kind == Kind::kNothing) ++n_memoised_;
  memo_[index] = v;
  return {};
}

Result<void> Machine::get(uint64_t index) {
  if (index >= memo_.size() || memo_[index].kind == Kind::kNothing)
    return corrupt(cat("expected a value in memo ", index, ", found none"));
  return push(memo_[index]);
}

Value Machine::line() {
  const size_t end = build_.bytes().substr(begin_ + in_.offset()).find('\n');
  if (end == std::string_view::npos) {
    in_.fail();
    return {};
  }
  const Value out = take_text(end, Kind::kText);
  in_.take(1);
  return out;
}

Result<void> Machine::push_global() {
  const Value module = line();
  const Value name = line();
  if (in_.failed()) return {};
  XD_TRY_SET(const Value v, build_.global(module, name));
  return push(v);
}

Result<void> Machine::stack_global() {
  XD_TRY_SET(const Value name, pop());
  XD_TRY_SET(const Value module, pop());
  if (module.kind != Kind::kText || name.kind != Kind::kText)
    return corrupt(cat("expected the names of a module and of what is in it, found ",
                       name_of(module.kind), " and ", name_of(name.kind)));
  XD_TRY_SET(const Value v, build_.global(module, name));
  return push(v);
}

Result<void> Machine::persistent_id() {
  XD_TRY_SET(const Value id, pop());
  XD_TRY_SET(const Value storage, build_.storage(id));
  return push(storage);
}

Result<void> Machine::reduce() {
  XD_TRY_SET(const Value arguments, pop());
  XD_TRY_SET(const Value function, pop());
  XD_TRY_SET(const Value made, build_.call(function, arguments));
  return push(made);
}

Result<void> Machine::new_object() {
  XD_TRY_SET(const Value arguments, pop());
  XD_TRY_SET(const Value type, pop());
  XD_TRY_SET(const Value made, build_.instance(type, arguments));
  return push(made);
}

Result<void> Machine::new_object_with_keywords() {
  XD_TRY_SET(const Value keywords, pop());
  XD_TRY(new_object());
  XD_TRY_SET(const Value object, top());
  return build_.append(object, {&keywords, 1});
}

Result<void> Machine::old_object() {
  XD_TRY_SET(const auto values, above_mark());
  if (values.empty()) return corrupt("expected a class above the mark, found nothing");
  XD_TRY_SET(const Value arguments, build_.tuple(values.subspan(1)));
  XD_TRY_SET(const Value made, build_.instance(values[0], arguments));
  drop(values.size());
  return push(made);
}

Result<void> Machine::build() {
  XD_TRY_SET(const Value state, pop());
  XD_TRY_SET(const Value object, top());
  if (object.kind == Kind::kDict) return {};
  if (object.kind == Kind::kOpaque) return build_.append(object, {&state, 1});
  return unsupported(cat("expected to set the attributes of a dict only, found BUILD of ",
                         name_of(object.kind), ": nothing was run"));
}

Result<void> Machine::push_long(uint32_t n) {
  const auto bytes = in_.take(n);
  if (in_.failed()) return {};
  if (n > 8) return push({Kind::kOther, 0, 0});
  uint64_t number = n > 0 && (static_cast<uint8_t>(bytes[n - 1u]) & 0x80) ? UINT64_MAX : 0;
  if (n > 0) std::memcpy(&number, bytes.data(), n);
  return push({Kind::kInt, 0, number});
}

Result<void> Machine::step(bool& stopped) {
  const uint8_t code = in_.u8();
  if (in_.failed()) return {};
  if (n_opcodes_++ == 0 && code != 0x80)
    return corrupt(cat("expected a pickle of protocol 2, found it begins with byte ", code));
  switch (code) {
    case 0x80:
      return begin_pickle();
    case '.': {
      stopped = true;
      XD_TRY_SET(root_, pop());
      if (!stack_.empty() || !marks_.empty())
        return corrupt("expected one value at the end, found more");
      return {};
    }
    case '(':
      if (marks_.size() >= kMaxMarks) return too_many("nested containers", kMaxMarks);
      marks_.push_back(stack_.size());
      return {};
    case 'N':
      return push({});
    case 0x88:
    case 0x89:
      return push_number(Kind::kBool, code == 0x88);
    case 'K':
      return push_number(Kind::kInt, in_.u8());
    case 'M':
      return push_number(Kind::kInt, in_.le<uint16_t>());
    case 'J':
      return push_number(Kind::kInt, in_.le<int32_t>());
    case 0x8a:
      return push_long(in_.u8());
    case 0x8b:
      return push_long(in_.le<uint32_t>());
    case 'G':
      return push({Kind::kFloat, 0, __builtin_bswap64(in_.le<uint64_t>())});
    case 'X':
    case 'T':
      return push_text(in_.le<uint32_t>());
    case 'U':
      return push_text(in_.u8());
    case 'C':
      return push_text(in_.u8(), Kind::kOther);
    case 'B':
      return push_text(in_.le<uint32_t>(), Kind::kOther);
    case ')':
      return push_tuple_of(0);
    case 0x85:
    case 0x86:
    case 0x87:
      return push_tuple_of(code - 0x84u);
    case 't': {
      XD_TRY_SET(const auto values, above_mark());
      return push_tuple_of(values.size());
    }
    case ']':
      return push_container(Kind::kList);
    case '}':
      return push_container(Kind::kDict);
    case 'a': {
      XD_TRY_SET(const Value v, pop());
      XD_TRY_SET(const Value list, top());
      return build_.append(list, {&v, 1});
    }
    case 's': {
      XD_TRY_SET(const Value value, pop());
      XD_TRY_SET(const Value key, pop());
      XD_TRY_SET(const Value dict, top());
      const Value both[] = {key, value};
      return build_.set_items(dict, both);
    }
    case 'e':
      return fill_above_mark(
          [this](const Value& list, auto values) { return build_.append(list, values); });
    case 'u':
      return fill_above_mark(
          [this](const Value& dict, auto values) { return build_.set_items(dict, values); });
    case '0':
      return pop_value_or_mark();
    case '1':
      return pop_mark();
    case 'h':
      return get(in_.u8());
    case 'j':
      return get(in_.le<uint32_t>());
    case 'q':
      return put(in_.u8());
    case 'r':
      return put(in_.le<uint32_t>());
    case 'c':
      return push_global();
    case 'R':
      return reduce();
    case 0x81:
      return new_object();
    case 'o':
      return old_object();
    case 'b':
      return build();
    case 'Q':
      return persistent_id();
    default:
      return step_of_protocol_4(code);
  }
}

Result<void> Machine::begin_pickle() {
  protocol_ = in_.u8();
  if (in_.failed() || (protocol_ >= 2 && protocol_ <= rules_.max_protocol)) return {};
  const std::string_view again =
      rules_.max_protocol == 3
          ? ": load the file in Python and torch.save it again, without pickle_protocol"
          : "";
  return unsupported(cat("expected pickle protocol 2 ", rules_.max_protocol == 3 ? "or " : "to ",
                         rules_.max_protocol, ", found ", protocol_, again));
}

Result<void> Machine::step_of_protocol_4(uint8_t code) {
  const auto refused = [&] {
    return unsupported(cat("expected an opcode that torch.save uses, found ", name_of_refused(code),
                           ": nothing was run"));
  };
  if (protocol_ < 4) return refused();
  switch (code) {
    case 0x95:  // a frame's length, which only helps to read ahead
      in_.take(8);
      return {};
    case 0x94:
      return put(n_memoised_);
    case 0x93:
      return stack_global();
    case 0x8c:
      return push_text(in_.u8());
    case 0x8d:
      return push_text(in_.le<uint64_t>());
    case 0x8e:
      return push_text(in_.le<uint64_t>(), Kind::kOther);
    case 0x92:
      return new_object_with_keywords();
    case 0x8f:  // a set, as the list of its values
      return push_container(Kind::kList);
    case 0x90:
      return fill_above_mark(
          [this](const Value& set, auto values) { return build_.append(set, values); });
    case 0x91: {
      XD_TRY_SET(const auto values, above_mark());
      XD_TRY_SET(const Value set, build_.container(Kind::kList));
      XD_TRY(build_.append(set, values));
      drop(values.size());
      return push(set);
    }
    default:
      return refused();
  }
}

}  // namespace crossdock::torch_read
