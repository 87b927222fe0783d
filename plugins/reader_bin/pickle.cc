#include "plugins/reader_bin/pickle.h"

#include "plugins/common/quote.h"
#include "plugins/reader_bin/globals.h"

#include <algorithm>
#include <limits>

namespace crossdock::reader_bin {

namespace {

using common::in_quotes;
using manifest::DType;

constexpr uint64_t kMaxInt = std::numeric_limits<int64_t>::max();

// Opcodes that pickles have and we do not take, for messages.
struct Refused {
  uint8_t code;
  std::string_view name;
};
constexpr Refused kRefused[] = {
    {'0', "POP"},           {'1', "POP_MARK"},
    {'2', "DUP"},           {'F', "FLOAT"},
    {'I', "INT"},           {'L', "LONG"},
    {'P', "PERSID"},        {'S', "STRING"},
    {'T', "BINSTRING"},     {'V', "UNICODE"},
    {'d', "DICT"},          {'g', "GET"},
    {'i', "INST"},          {'l', "LIST"},
    {'o', "OBJ"},           {'p', "PUT"},
    {0x81, "NEWOBJ"},       {0x82, "EXT1"},
    {0x83, "EXT2"},         {0x84, "EXT4"},
    {0x8b, "LONG4"},        {0x8c, "SHORT_BINUNICODE"},
    {0x8d, "BINUNICODE8"},  {0x8e, "BINBYTES8"},
    {0x8f, "EMPTY_SET"},    {0x90, "ADDITEMS"},
    {0x91, "FROZENSET"},    {0x92, "NEWOBJ_EX"},
    {0x93, "STACK_GLOBAL"}, {0x94, "MEMOIZE"},
    {0x95, "FRAME"},        {0x96, "BYTEARRAY8"},
    {0x97, "NEXT_BUFFER"},  {0x98, "READONLY_BUFFER"},
};

Error ends_early() { return {XD_OUT_OF_RANGE, "expected more of the pickle, found its end: the file is cut off"}; }
Error too_many(std::string_view what, size_t limit) {
  return unsupported(cat("expected at most ", limit, ' ', what, ", found more"));
}

}  // namespace

class Machine {
 public:
  Machine(std::string_view bytes, uint64_t begin) : in_(as_bytes(bytes).subspan(begin)), begin_(begin) {
    out_.bytes_ = bytes;
  }

  Result<Pickle> run() {
    uint64_t place = begin_;
    for (bool stopped = false; !stopped;) {
      place = begin_ + in_.offset();
      auto done = step(stopped);
      if (in_.failed()) return ends_early().in(cat("byte ", place));
      if (!done) return std::move(done).error().in(cat("byte ", place));
    }
    out_.end_ = begin_ + in_.offset();
    return std::move(out_);
  }

 private:
  // ---- the stack
  Result<void> push(Value v) {
    XD_TRY(count_values(1));
    stack_.push_back(v);
    return {};
  }
  Result<void> push_number(Kind kind, int64_t number) { return push({kind, 0, static_cast<uint64_t>(number)}); }

  // Values since the last mark may be taken, not those below it: they belong to a container outside.
  size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }
  Result<Value> pop() {
    if (stack_.size() <= floor()) return corrupt("expected a value on the stack, found none");
    const Value out = stack_.back();
    stack_.pop_back();
    --n_values_;
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
    n_values_ -= n;
  }

  // ---- new values
  Result<void> count_values(size_t n) {
    n_values_ += n;
    if (n_values_ > kMaxValues) return too_many("values", kMaxValues);
    return {};
  }
  Result<void> count_object() {
    if (++n_objects_ > kMaxObjects) return too_many("objects", kMaxObjects);
    return {};
  }
  Result<Value> container(Kind kind) {
    XD_TRY(count_object());
    out_.containers_.emplace_back();
    return Value{kind, 0, out_.containers_.size() - 1};
  }
  Result<void> push_container(Kind kind) {
    XD_TRY_SET(const Value v, container(kind));
    return push(v);
  }
  Result<Value> tuple(std::span<const Value> values) {
    XD_TRY(count_values(values.size()));
    const Value out{Kind::kTuple, static_cast<uint32_t>(values.size()), out_.pool_.size()};
    out_.pool_.insert(out_.pool_.end(), values.begin(), values.end());
    return out;
  }
  Result<void> push_tuple_of(size_t n) {
    if (stack_.size() < floor() + n) return corrupt(cat("expected ", n, " values on the stack, found fewer"));
    XD_TRY_SET(const Value out, tuple(std::span<const Value>(stack_).last(n)));
    drop(n);
    return push(out);
  }
  Result<void> push_text(uint64_t length, Kind kind = Kind::kText) {
    const uint64_t place = begin_ + in_.offset();
    in_.take(length);
    return push({kind, static_cast<uint32_t>(length), place});
  }

  // ---- containers
  Result<void> append(const Value& list, std::span<const Value> values) {
    if (list.kind != Kind::kList) return corrupt(cat("expected a list to append to, found ", name_of(list.kind)));
    auto& to = out_.containers_[list.data];
    XD_TRY(count_values(values.size()));
    to.insert(to.end(), values.begin(), values.end());
    return {};
  }
  Result<void> set_items(const Value& dict, std::span<const Value> values) {
    if (dict.kind != Kind::kDict) return corrupt(cat("expected a dict to set items of, found ", name_of(dict.kind)));
    if (values.size() % 2 != 0) return corrupt("expected a value for each key, found an odd number");
    for (size_t i = 0; i < values.size(); i += 2) {
      const Kind key = values[i].kind;
      if (key == Kind::kList || key == Kind::kDict) return corrupt(cat("expected a key, found ", name_of(key)));
    }
    auto& to = out_.containers_[dict.data];
    XD_TRY(count_values(values.size()));
    to.insert(to.end(), values.begin(), values.end());
    return {};
  }
  // APPENDS and SETITEMS: the container below the mark.
  template <class Fill>
  Result<void> fill_above_mark(Fill fill) {
    XD_TRY_SET(const auto values, above_mark());
    if (stack_.size() - values.size() <= floor()) return corrupt("expected a container below the mark, found none");
    XD_TRY(fill(stack_[stack_.size() - values.size() - 1], values));
    drop(values.size());
    return {};
  }

  // ---- the memo
  Result<void> put(uint64_t index) {
    XD_TRY_SET(const Value v, top());
    // Picklers number their memo from 0 on (Python 2 from 1); a file that skips far ahead wants our memory.
    constexpr uint64_t kMaxGap = 4096;
    if (index > memo_.size() + kMaxGap) return corrupt(cat("expected memo ", memo_.size(), " next, found ", index));
    if (index >= memo_.size()) {
      XD_TRY(count_values(index + 1 - memo_.size()));
      memo_.resize(index + 1, Value{Kind::kNothing});
    }
    memo_[index] = v;
    return {};
  }
  Result<void> get(uint64_t index) {
    if (index >= memo_.size() || memo_[index].kind == Kind::kNothing)
      return corrupt(cat("expected a value in memo ", index, ", found none"));
    return push(memo_[index]);
  }

  // ---- globals
  std::string_view line() {
    const auto rest = out_.bytes_.substr(begin_ + in_.offset());
    const size_t end = rest.find('\n');
    if (end == std::string_view::npos) {
      in_.fail();
      return {};
    }
    in_.take(end + 1);
    return rest.substr(0, end);
  }
  Result<void> global() {
    const std::string_view module = line();
    const std::string_view name = line();
    if (in_.failed()) return {};
    const auto known = find_global(module, name);
    if (known) return push({Kind::kGlobal, static_cast<uint32_t>(known->dtype), static_cast<uint64_t>(known->what)});
    const std::string_view advice = advice_on(module, name);
    const std::string what = in_quotes(cat(module, '.', name));
    if (!advice.empty()) return unsupported(cat("expected plain tensors and values, found ", what, ", ", advice));
    return unsupported(
        cat("expected only what a state dict is made of, found the global ", what,
            ": nothing was run. If you trust the file, load it in Python and save its state dict alone"));
  }
  static bool is_global(const Value& v, Global what) {
    return v.kind == Kind::kGlobal && v.data == static_cast<uint64_t>(what);
  }

  // ---- tensors
  static Result<uint64_t> natural(const Value& v, std::string_view what) {
    const bool is_number = v.kind == Kind::kInt && v.data <= kMaxInt;
    if (!is_number)
      return corrupt(cat("expected ", what, " of 0 or more, found ",
                         v.kind == Kind::kInt ? cat(static_cast<int64_t>(v.data)) : std::string(name_of(v.kind))));
    return v.data;
  }
  Result<std::vector<uint64_t>> naturals(const Value& v, std::string_view what) const {
    if (v.kind != Kind::kTuple) return corrupt(cat("expected a tuple of numbers, found ", name_of(v.kind)));
    if (v.length > kMaxDimensions) return too_many("dimensions", kMaxDimensions);
    std::vector<uint64_t> out;
    for (const Value& item : out_.tuple(v)) {
      XD_TRY_SET(const uint64_t n, natural(item, what));
      out.push_back(n);
    }
    return out;
  }

  // ("storage", class, key, location, number of elements[, None or (view key, first element, number of elements)])
  Result<void> persistent_id() {
    XD_TRY_SET(const Value id, pop());
    const auto parts = id.kind == Kind::kTuple ? out_.tuple(id) : std::span<const Value>();
    const bool is_storage = (parts.size() == 5 || parts.size() == 6) && parts[0].kind == Kind::kText &&
                            out_.text(parts[0]) == "storage" && is_global(parts[1], Global::kStorage) &&
                            parts[2].kind == Kind::kText && parts[3].kind == Kind::kText;
    if (!is_storage) {
      if (!parts.empty() && parts[0].kind == Kind::kText && out_.text(parts[0]) == "module")
        return unsupported("expected a state dict, found a whole module saved with its code: save model.state_dict()");
      return corrupt("expected a persistent id that names a storage, found another");
    }
    Storage s;
    s.key = out_.text(parts[2]);
    s.element = static_cast<DType>(parts[1].length);
    XD_TRY_SET(s.n_elems, natural(parts[4], "a number of elements"));
    s.n_viewed = s.n_elems;
    if (!manifest::dense_bytes(s.element, s.n_elems)) return corrupt("expected a storage below 2^64 bytes, found more");
    if (parts.size() == 6 && parts[5].kind != Kind::kNone) {
      const auto view = parts[5].kind == Kind::kTuple ? out_.tuple(parts[5]) : std::span<const Value>();
      if (view.size() != 3) return corrupt("expected the key, offset and size of a storage's view, found another");
      XD_TRY_SET(s.first, natural(view[1], "an offset"));
      XD_TRY_SET(s.n_viewed, natural(view[2], "a size"));
      if (s.first > s.n_elems || s.n_viewed > s.n_elems - s.first)
        return corrupt(
            cat("expected a view inside its storage of ", s.n_elems, " elements, found ", s.n_viewed, " at ", s.first));
    }
    XD_TRY(count_object());
    out_.storages_.push_back(s);
    return push({Kind::kStorage, 0, out_.storages_.size() - 1});
  }

  Result<void> check_inside(const Tensor& t, const Storage& s) const {
    const auto n_elems = checked_product(t.shape);
    const auto n_bytes = n_elems ? manifest::dense_bytes(t.dtype, *n_elems) : std::nullopt;
    if (!n_bytes) return corrupt("expected a tensor below 2^64 bytes, found a shape that overflows");
    const uint64_t storage_bytes = s.n_viewed * manifest::info(s.element).bits / 8;
    uint64_t last = t.offset;
    if (*n_elems == 0) return {};
    for (size_t i = 0; i < t.shape.size(); ++i) {
      const auto step = checked_mul(t.shape[i] - 1, t.strides[i]);
      const auto sum = step ? checked_add(last, *step) : std::nullopt;
      if (!sum) return corrupt("expected strides inside the storage, found ones that overflow");
      last = *sum;
    }
    const uint64_t room = storage_bytes / (manifest::info(t.dtype).bits / 8);
    if (last >= room)
      return corrupt(
          cat("expected a tensor inside its storage of ", room, " elements, found one that reaches element ", last));
    return {};
  }

  // The arguments that all three forms begin with: storage, offset, shape, strides.
  Result<Value> rebuild_tensor(std::span<const Value> args, DType dtype) {
    if (args[0].kind != Kind::kStorage)
      return corrupt(cat("expected a tensor's storage, found ", name_of(args[0].kind)));
    const Storage& s = out_.storages_[args[0].data];
    Tensor t;
    t.storage = static_cast<uint32_t>(args[0].data);
    t.dtype = dtype == DType::UNSPECIFIED ? s.element : dtype;
    XD_TRY_SET(t.offset, natural(args[1], "an offset"));
    XD_TRY_SET(t.shape, naturals(args[2], "a size"));
    XD_TRY_SET(t.strides, naturals(args[3], "a stride"));
    if (t.shape.size() != t.strides.size()) {
      return corrupt(cat("expected a stride for each of ", t.shape.size(), " dimensions, found ", t.strides.size()));
    }
    XD_TRY(count_values(t.shape.size()));  // as much memory again
    XD_TRY(check_inside(t, s));
    const uint64_t first_bits = s.first * manifest::info(s.element).bits;
    if (first_bits % manifest::info(t.dtype).bits != 0) return corrupt("expected a view at a whole element");
    t.offset += first_bits / manifest::info(t.dtype).bits;
    XD_TRY(count_object());
    out_.tensors_.push_back(std::move(t));
    return Value{Kind::kTensor, 0, out_.tensors_.size() - 1};
  }

  // What changes a tensor's values when they are read: lazy conjugates and negatives.
  Result<void> check_metadata(std::span<const Value> args, size_t at) const {
    if (args.size() <= at || args[at].kind == Kind::kNone) return {};
    if (args[at].kind != Kind::kDict)
      return corrupt(cat("expected a tensor's metadata, found ", name_of(args[at].kind)));
    for (const std::string_view key : {"conj", "neg"}) {
      const Value* v = out_.find(args[at], key);
      if (v && !(v->kind == Kind::kBool && v->data == 0))
        return unsupported(cat("expected plain values, found a tensor that is marked \"", key, "\": save its resolve_",
                               key, "() instead"));
    }
    return {};
  }

  Result<Value> parameter(std::span<const Value> args) {
    if (args[0].kind != Kind::kTensor)
      return corrupt(cat("expected a parameter's tensor, found ", name_of(args[0].kind)));
    Tensor t = out_.tensors_[args[0].data];
    t.is_parameter = true;
    t.requires_grad = args[1].kind == Kind::kBool && args[1].data != 0;
    XD_TRY(count_object());
    out_.tensors_.push_back(std::move(t));
    return Value{Kind::kTensor, 0, out_.tensors_.size() - 1};
  }

  // ---- what a call would give
  Result<Value> call(const Value& function, const Value& arguments, bool nested = false) {
    if (function.kind != Kind::kGlobal)
      return corrupt(cat("expected a function to call, found ", name_of(function.kind)));
    if (arguments.kind != Kind::kTuple)
      return corrupt(cat("expected a tuple of arguments, found ", name_of(arguments.kind)));
    const auto args = out_.tuple(arguments);
    const auto wants = [&](size_t least, size_t most) -> Result<void> {
      if (args.size() >= least && args.size() <= most) return {};
      return corrupt(cat("expected ", least, " to ", most, " arguments, found ", args.size()));
    };
    switch (static_cast<Global>(function.data)) {
      case Global::kOrderedDict:
      case Global::kCounter:
        XD_TRY(wants(0, 1));
        return dict_of(args);
      case Global::kSize:
        XD_TRY(wants(1, 1));
        if (args[0].kind == Kind::kTuple) return args[0];
        return corrupt(cat("expected a tuple in torch.Size, found ", name_of(args[0].kind)));
      case Global::kEncode:
      case Global::kSet:
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
        if (!is_global(args[6], Global::kDType)) return corrupt(cat("expected a dtype, found ", name_of(args[6].kind)));
        return rebuild_tensor(args, static_cast<DType>(args[6].length));
      case Global::kRebuildParameter:
        XD_TRY(wants(3, 3));
        return parameter(args);
      case Global::kRebuildParameterWithState:
        XD_TRY(wants(4, 4));
        return parameter(args);
      case Global::kRebuildFromType: {
        // (function, class, its arguments, the attributes): a tensor with Python attributes, which we leave.
        XD_TRY(wants(4, 4));
        if (nested) return corrupt("expected a tensor to rebuild, found a rebuilding of a rebuilding");
        if (!is_global(args[1], Global::kTensor) && !is_global(args[1], Global::kParameter))
          return unsupported("expected a plain tensor, found another class of tensor");
        return call(args[0], args[2], true);
      }
      case Global::kTensor:
      case Global::kParameter:
      case Global::kStorage:
      case Global::kDType:
        break;
    }
    return unsupported("expected a call that makes a plain value or tensor, found a call of a class: nothing was run");
  }

  // OrderedDict(), or OrderedDict([[key, value], ...]) as Python 2 wrote it.
  Result<Value> dict_of(std::span<const Value> args) {
    XD_TRY_SET(const Value dict, container(Kind::kDict));
    if (args.empty()) return dict;
    if (args[0].kind == Kind::kDict) {
      const auto items = out_.containers_[args[0].data];
      XD_TRY(set_items(dict, items));
      return dict;
    }
    if (args[0].kind != Kind::kList) return corrupt(cat("expected a list of pairs, found ", name_of(args[0].kind)));
    const auto pairs = out_.containers_[args[0].data];
    for (const Value& pair : pairs) {
      const bool is_list = pair.kind == Kind::kList;
      if (!is_list && pair.kind != Kind::kTuple) return corrupt(cat("expected a pair, found ", name_of(pair.kind)));
      const auto both = is_list ? std::span<const Value>(out_.containers_[pair.data]) : out_.tuple(pair);
      if (both.size() != 2) return corrupt(cat("expected a key and a value, found ", both.size(), " values"));
      const Value two[] = {both[0], both[1]};
      XD_TRY(set_items(dict, two));
    }
    return dict;
  }

  Result<void> reduce() {
    XD_TRY_SET(const Value arguments, pop());
    XD_TRY_SET(const Value function, pop());
    XD_TRY_SET(const Value made, call(function, arguments));
    return push(made);
  }
  // The attributes of an OrderedDict: a state dict's _metadata, which no tensor needs.
  Result<void> build() {
    XD_TRY(pop());
    XD_TRY_SET(const Value object, top());
    if (object.kind == Kind::kDict) return {};
    return unsupported(cat("expected to set the attributes of a dict only, found BUILD of ", name_of(object.kind),
                           ": nothing was run"));
  }

  Result<void> long1() {
    const uint8_t n = in_.u8();
    const auto bytes = in_.take(n);
    if (in_.failed()) return {};
    if (n > 8) return push({Kind::kOther, 0, 0});
    uint64_t number = n > 0 && (static_cast<uint8_t>(bytes[n - 1u]) & 0x80) ? UINT64_MAX : 0;
    if (n > 0) std::memcpy(&number, bytes.data(), n);
    return push({Kind::kInt, 0, number});
  }

  // ---- one opcode. A cursor that has failed is noticed by the caller: what is pushed then is never seen.
  Result<void> step(bool& stopped) {
    const uint8_t code = in_.u8();
    if (in_.failed()) return {};
    if (n_opcodes_++ == 0 && code != 0x80)
      return corrupt(cat("expected a pickle of protocol 2, found it begins with byte ", code));
    switch (code) {
      case 0x80: {
        const uint8_t protocol = in_.u8();
        if (in_.failed() || protocol == 2 || protocol == 3) return {};
        return unsupported(cat("expected pickle protocol 2 or 3, found ", protocol,
                               ": load the file in Python and torch.save it again, without pickle_protocol"));
      }
      case '.': {
        stopped = true;
        XD_TRY_SET(out_.root_, pop());
        if (!stack_.empty() || !marks_.empty()) return corrupt("expected one value at the end, found more");
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
        return long1();
      case 'G':
        in_.take(8);
        return push({Kind::kFloat, 0, 0});
      case 'X':
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
        return append(list, {&v, 1});
      }
      case 's': {
        XD_TRY_SET(const Value value, pop());
        XD_TRY_SET(const Value key, pop());
        XD_TRY_SET(const Value dict, top());
        const Value both[] = {key, value};
        return set_items(dict, both);
      }
      case 'e':
        return fill_above_mark([this](const Value& list, auto values) { return append(list, values); });
      case 'u':
        return fill_above_mark([this](const Value& dict, auto values) { return set_items(dict, values); });
      case 'h':
        return get(in_.u8());
      case 'j':
        return get(in_.le<uint32_t>());
      case 'q':
        return put(in_.u8());
      case 'r':
        return put(in_.le<uint32_t>());
      case 'c':
        return global();
      case 'R':
        return reduce();
      case 'b':
        return build();
      case 'Q':
        return persistent_id();
      default:
        break;
    }
    const auto known =
        std::find_if(std::begin(kRefused), std::end(kRefused), [&](const Refused& r) { return r.code == code; });
    const std::string what = known == std::end(kRefused) ? cat("byte ", code) : std::string(known->name);
    return unsupported(cat("expected an opcode that torch.save uses, found ", what, ": nothing was run"));
  }

  Cursor in_;
  uint64_t begin_;
  Pickle out_;
  std::vector<Value> stack_, memo_;
  std::vector<size_t> marks_;
  size_t n_values_ = 0, n_objects_ = 0, n_opcodes_ = 0;
};

const Value* Pickle::find(const Value& dict, std::string_view key) const {
  const auto all = items(dict);
  for (size_t i = all.size(); i >= 2; i -= 2) {
    if (all[i - 2].kind == Kind::kText && text(all[i - 2]) == key) return &all[i - 1];
  }
  return nullptr;
}

std::string_view name_of(Kind kind) {
  constexpr std::string_view kNames[] = {"None",     "a bool",  "an integer",   "a float",  "a string",
                                         "a list",   "a tuple", "a dict",       "a global", "a storage",
                                         "a tensor", "nothing", "another value"};
  return kNames[static_cast<size_t>(kind)];
}

Result<Pickle> read_pickle(std::string_view bytes, uint64_t begin) {
  if (begin >= bytes.size()) return ends_early();
  return Machine(bytes, begin).run();
}

}  // namespace crossdock::reader_bin
