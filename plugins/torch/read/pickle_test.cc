// SPDX-License-Identifier: Apache-2.0
#include "plugins/torch/read/pickle.h"

#include "plugins/torch/read/recipes_for_test.h"
#include "tests/support/plugin_checks.h"

using namespace crossdock;
using test::has;
using namespace crossdock::torch_read;
using namespace crossdock::torch_read::recipe;
using manifest::DType;

namespace {

std::string outcome(const std::string& bytes) {
  const auto p = read_pickle(bytes);
  return p ? "accepted" : p.error().message;
}
std::string outcome_of(const std::string& value) { return outcome(pickle(value)); }

}  // namespace

TEST_CASE("pickle: plain values") {
  const std::string bytes =
      pickle(dict({text("n"), "N", text("t"), "\x88", text("f"), "\x89", text("i"), number(7),
                   text("big"), number(-(int64_t{1} << 40)), text("float"), real(-2.5),
                   text("list"), list({number(1), text("two")}), text("tuple"),
                   tuple({number(1), "]", "}"}), text("bytes"), "C\x01x"}));
  const auto p = read_pickle(bytes);
  REQUIRE(p);
  const Value& root = p->root();
  REQUIRE(root.kind == Kind::kDict);
  CHECK(p->items(root).size() == 18);
  CHECK(p->find(root, "n")->kind == Kind::kNone);
  CHECK(p->find(root, "t")->data == 1);
  CHECK(p->find(root, "f")->data == 0);
  CHECK(p->find(root, "i")->data == 7);
  CHECK(static_cast<int64_t>(p->find(root, "big")->data) == -(int64_t{1} << 40));
  CHECK(p->find(root, "float")->kind == Kind::kFloat);
  CHECK(p->find(root, "float")->real() == -2.5);
  CHECK(p->text(p->items(*p->find(root, "list"))[1]) == "two");
  CHECK(p->tuple(*p->find(root, "tuple")).size() == 3);
  CHECK(p->find(root, "bytes")->kind == Kind::kOther);
  CHECK_FALSE(p->find(root, "none such"));
  CHECK(p->end() == bytes.size());
}

TEST_CASE("pickle: what an object was made of") {
  const std::string bytes =
      pickle(tuple({global("a", "Stage") + "K\x03\x85R",
                    global("a", "Scaler") + ")\x81}" + text("n") + number(7) + "sb",
                    global("a", "Two") + "K\x01K\x02\x86R", global("a", "Name")}));
  const auto p = read_pickle(bytes);
  REQUIRE(p);
  const auto parts = p->tuple(p->root());
  REQUIRE(parts.size() == 4);
  REQUIRE(p->argument_of(parts[0]));
  CHECK(p->argument_of(parts[0])->data == 3);
  CHECK_FALSE(p->attributes_of(parts[0]));
  REQUIRE(p->attributes_of(parts[1]));
  CHECK(p->find(*p->attributes_of(parts[1]), "n")->data == 7);
  for (const size_t i : {1u, 2u, 3u}) CHECK_FALSE(p->argument_of(parts[i]));
}

TEST_CASE("pickle: integers of every length") {
  const auto value = [](std::string_view bytes) {
    const std::string stream =
        pickle("\x8a" + std::string(1, static_cast<char>(bytes.size())) + std::string(bytes));
    const auto p = read_pickle(stream);
    return p && p->root().kind == Kind::kInt ? std::to_string(static_cast<int64_t>(p->root().data))
                                             : "other";
  };
  CHECK(value("") == "0");
  CHECK(value("\xff") == "-1");
  CHECK(value(std::string_view("\xff\x00", 2)) == "255");
  CHECK(value(std::string_view("\x00\x80", 2)) == "-32768");
  CHECK(value("12345678") == "4050765991979987505");
  CHECK(value("123456789") == "other");
}

TEST_CASE("pickle: a tensor, a parameter and what they stand on") {
  const std::string t = tensor(storage("5", 12, "HalfStorage"), 2, {2, 3}, {4, 1});
  const std::string bytes = pickle(
      tuple({t, call(global("torch._utils", "_rebuild_parameter"), {t, "\x88", ordered_dict({})}),
             call(global("torch._tensor", "_rebuild_from_type_v2"),
                  {global("torch._utils", "_rebuild_tensor_v2"), global("torch", "Tensor"),
                   tuple({storage("6", 4), number(0), numbers({4}), numbers({1}), "\x89",
                          ordered_dict({})}),
                   "}"}),
             call(global("torch._utils", "_rebuild_tensor_v3"),
                  {storage("7", 8, "UntypedStorage", "torch.storage"), number(1), numbers({3}),
                   numbers({1}), "\x89", ordered_dict({}), global("torch", "uint16")})}));
  const auto p = read_pickle(bytes);
  REQUIRE(p);
  const auto all = p->tuple(p->root());
  const Tensor& first = p->tensor(all[0]);
  CHECK(first.dtype == DType::F16);
  CHECK(first.offset == 2);
  CHECK(first.shape == std::vector<uint64_t>{2, 3});
  CHECK(first.strides == std::vector<uint64_t>{4, 1});
  CHECK_FALSE(first.is_parameter);
  CHECK(p->storage(first.storage).key == "5");
  CHECK(p->storage(first.storage).n_bytes() == 24);
  CHECK(p->tensor(all[1]).is_parameter);
  CHECK(p->tensor(all[1]).requires_grad);
  CHECK(p->tensor(all[2]).dtype == DType::F32);
  CHECK(p->tensor(all[3]).dtype == DType::U16);
  CHECK(p->storage(p->tensor(all[3]).storage).n_bytes() == 8);
}

TEST_CASE("pickle: views of a root storage, as torch 0.2 has them") {
  const std::string id =
      tuple({text("storage"), global("torch", "FloatStorage"), text("1"), text("cpu"), number(10),
             tuple({text("2"), number(4), number(3)})}) +
      "Q";
  const std::string bytes = pickle(tensor(id, 1, {2}, {1})), over = pickle(tensor(id, 1, {3}, {1}));
  const auto p = read_pickle(bytes);
  REQUIRE(p);
  CHECK(p->tensor(p->root()).offset == 5);
  CHECK(
      has(outcome(over),
          "expected a tensor inside its storage of 3 elements, found one that reaches element 3"));
}

TEST_CASE("pickle: a stream of several") {
  const std::string bytes = pickle(number(1)) + pickle(number(2));
  const auto first = read_pickle(bytes);
  REQUIRE(first);
  const auto second = read_pickle(bytes, first->end());
  REQUIRE(second);
  CHECK(second->root().data == 2);
  CHECK(second->end() == bytes.size());
  const auto third = read_pickle(bytes, second->end());
  REQUIRE_FALSE(third);
  CHECK(third.error().code == XD_OUT_OF_RANGE);
}

TEST_CASE("pickle: ends at every byte") {
  const std::string bytes =
      pickle(dict({text("w"), tensor(storage("0", 300), 0, {300}, {1}), text("n"), number(-5),
                   text("l"), number(int64_t{1} << 33), text("g"), "G12345678", text("m"),
                   "M\x01\x02q\x00"s, text("h"), "h\x00"s}));
  REQUIRE(outcome(bytes) == "accepted");
  for (size_t n = 0; n < bytes.size(); ++n) {
    INFO(n);
    const std::string cut = bytes.substr(0, n);
    const auto p = read_pickle(cut);
    REQUIRE_FALSE(p);
    CHECK(p.error().code == XD_OUT_OF_RANGE);
  }
}

TEST_CASE("pickle: the memo") {
  CHECK(outcome_of("Nq\x00h\x00\x86"s) == "accepted");
  CHECK(outcome_of("Nq\x01h\x01\x86"s) == "accepted");  // Python 2 counts from 1
  CHECK(has(outcome_of("h\x05"s), "expected a value in memo 5, found none"));
  CHECK(has(outcome_of("Nq\x02h\x01\x86"s), "expected a value in memo 1, found none"));
  CHECK(has(outcome_of("Nr\xff\xff\xff\x7f"s), "expected memo 0 next, found 2147483647"));
}

TEST_CASE("pickle: nothing runs") {
  CHECK(outcome_of(call(global("os", "system"), {text("touch /tmp/x")})) ==
        "byte 2: expected what a checkpoint is made of, found the global \"os.system\", which none "
        "has a use for: "
        "nothing was run, and the file is most likely made to attack whoever loads it");
  for (const auto& [module, name] :
       std::initializer_list<std::pair<const char*, const char*>>{{"builtins", "eval"},
                                                                  {"__builtin__", "exec"},
                                                                  {"__builtin__", "__import__"},
                                                                  {"io", "open"},
                                                                  {"posix", "system"},
                                                                  {"nt", "system"},
                                                                  {"sys", "modules"},
                                                                  {"subprocess", "Popen"},
                                                                  {"runpy", "run_path"},
                                                                  {"importlib", "import_module"}}) {
    INFO(module << '.' << name);
    CHECK(has(outcome_of(global(module, name)), "nothing was run"));
    CHECK(has(outcome_of(dict({text("w"), "N", text("x"), global(module, name)})),
              "most likely made to attack"));
  }
  struct Case {
    std::string value, message;
  };
  for (const auto& [value, message] : {
           Case{"Nios\nsystem\n", "found INST"},
           Case{text("os") + text("system") + "\x93", "found STACK_GLOBAL"},
           Case{"\x82\x01", "found EXT1"},
           Case{"S'x'\n", "found STRING"},
           Case{"N2", "found DUP"},
           Case{"\x8f", "found EMPTY_SET"},
           Case{"\xff", "found byte 255"},
           Case{"N)\x81", "found one of None with a tuple"},
           Case{global("torch", "Tensor") + ")\x81", "found one of a global with a tuple"},
           Case{global("a", "B") + "N\x81", "found one of an object of a class with None"},
           Case{"(N)o", "found one of None with a tuple"},
       }) {
    INFO(message);
    CHECK(has(outcome_of(value), message));
    CHECK(has(outcome_of(value), "nothing was run"));
  }
  CHECK(has(outcome_of("]Nb"), "found BUILD of a list"));
  CHECK(has(outcome_of(tensor(storage("0", 1), 0, {1}, {1}) + "Nb"), "found BUILD of a tensor"));
  CHECK(has(outcome_of("N)R"), "expected a function to call, found None"));
  CHECK(has(outcome_of(global("a", "b") + "NR"), "expected a tuple of arguments, found None"));
  CHECK(has(outcome_of(global("torch", "FloatStorage") + ")R"), "found a call of a class"));
  CHECK(has(outcome_of(global("torch", "float32") + ")R"), "found a call of a class"));
  CHECK(
      has(outcome_of(global("torch.nn.parameter", "Parameter") + ")R"), "found a call of a class"));
  CHECK(outcome_of("}}b") == "accepted");  // a state dict's _metadata
  CHECK(has(outcome(pickle(number(1)).replace(1, 1, "\x04")),
            "expected pickle protocol 2 or 3, found 4"));
  CHECK(has(outcome("N."), "expected a pickle of protocol 2, found it begins with byte 78"));
}

TEST_CASE("pickle: objects of unknown classes are opaque, whatever is done with them") {
  const auto name = [](const std::string& value) {
    const std::string bytes = pickle(value);
    const auto p = read_pickle(bytes);
    if (!p) return p.error().message;
    if (p->root().kind != Kind::kOpaque) return std::string(name_of(p->root().kind));
    return p->class_of(p->root()) + (p->root().length ? " holds values" : "");
  };
  const std::string type = global("a.b", "C");
  CHECK(name(type) == "a.b.C");
  CHECK(name(type + ")R") == "a.b.C");
  CHECK(name(type + ")\x81}" + text("x") + "Nsb") == "a.b.C");
  CHECK(name("(" + type + number(1) + "o}b") == "a.b.C");
  CHECK(name(call(call(type, {number(1)}), {"N"})) == "a.b.C");
  CHECK(name(type + ")\x81" + number(1) + "a(" + number(1) + "Ne" + text("k") + "Ns(" + text("k") +
             "Nu") == "a.b.C");
  CHECK(name(type + "(" + number(1) + "1") == "a.b.C");
  CHECK(name(type + number(1) + "0") == "a.b.C");
  CHECK(name("(0" + type) == "a.b.C");
  CHECK(name(global("__builtin__", "getattr") + tuple({type, text("D")}) + "R") == "a.b.C");
  CHECK(name(call(global("copy_reg", "_reconstructor"),
                  {type, global("__builtin__", "object"), "N"})) == "a.b.C");
  CHECK(name(global("torch", "OrderedDict")) == "torch.OrderedDict");
  CHECK(name(global("torch.cuda", "float32")) == "torch.cuda.float32");
  CHECK(name(global("", "")) == ".");
  CHECK(name(call(global("collections", "defaultdict"), {type}) + text("k") + "Ns") == "a dict");
  CHECK(name(call(global("__builtin__", "set"), {list({number(1)})})) == "a list");
  CHECK(name("\x8b\x09\0\0\0"
             "123456789"s) == "another value");
  CHECK(name("T\x01\0\0\0x"s) == "a string");

  // What stands for a tensor, though it may be made of none.
  const std::string strange =
      tuple({text("storage"), global("torch", "QInt8Storage"), text("0"), text("cpu"), number(4)}) +
      "Q";
  CHECK(name(strange) == "torch.QInt8Storage holds values");
  CHECK(name(tensor(strange, 0, {1}, {1})) == "torch.QInt8Storage holds values");
  CHECK(name(call(global("torch._utils", "_rebuild_parameter"), {call(type, {}), "\x88", "N"})) ==
        "a.b.C holds values");
  CHECK(name(call(global("torch._tensor", "_rebuild_from_type_v2"),
                  {global("torch._utils", "_rebuild_tensor_v2"), type, tuple({}), "N"})) ==
        "a.b.C holds values");
  CHECK(name(call(global("torch._utils", "_rebuild_meta_tensor_no_storage"), {"N"})) ==
        "torch._utils._rebuild_meta_tensor_no_storage holds values");
  CHECK(name(call(global("numpy.core.multiarray", "_reconstruct"), {"N"}) + "Nb") ==
        "numpy.core.multiarray._reconstruct holds values");
  CHECK(name(call(global("numpy.core.multiarray", "scalar"), {"N"})) ==
        "numpy.core.multiarray.scalar");
  CHECK(name(tuple({text("module"), type, text("x.py"), text("class C")}) + "Q)\x81") == "a.b.C");
}

TEST_CASE("pickle: a device's tensor is the CPU's, when nothing casts it") {
  const auto of = [](const std::string& t, const std::string& dtype) {
    return outcome_of(call(global("torch._utils", "_rebuild_device_tensor_from_cpu_tensor"),
                           {t, dtype, text("xla:0"), "\x89"}) +
                      "\x85");
  };
  const std::string t = tensor(storage("0", 1), 0, {1}, {1});
  CHECK(of(t, global("torch", "float32")) == "accepted");
  CHECK(has(of(t, global("torch", "float16")),
            "in its own type, F32, found one that loading casts to F16: save its"));
  CHECK(has(of(t, "N"), "expected a dtype, found None"));
  CHECK(has(of("N", global("torch", "float32")), "expected a device's tensor, found None"));
}

TEST_CASE("pickle: a stack that does not fit the opcodes") {
  for (const char* value :
       {"",   "t",  "\x85", "N\x86", "a",       "]a",   "N]a",  "s",   "}Ns", "e",
        "u",  "(e", "(u",   "N(Ne",  "](]((ee", "R",    ")R",   "b",   "Q",   "q\x01",
        "NN", "(N", "(N(t", "NNa",   "NNNs",    "}(Nu", "}]Ns", "}}Ns"}) {
    INFO(value);
    CHECK(outcome_of(value) != "accepted");
  }
}

TEST_CASE("pickle: tensors that are not inside their storage") {
  const auto verdict = [](int64_t offset, std::initializer_list<int64_t> shape,
                          std::initializer_list<int64_t> strides) {
    return outcome_of(tensor(storage("0", 12), offset, shape, strides));
  };
  CHECK(verdict(0, {3, 4}, {4, 1}) == "accepted");
  CHECK(verdict(0, {}, {}) == "accepted");
  CHECK(verdict(11, {}, {}) == "accepted");
  CHECK(verdict(100, {0, 5}, {5, 1}) == "accepted");  // no element, no place
  CHECK(verdict(0, {1 << 30}, {0}) == "accepted");  // the reader refuses what is too large to write
  CHECK(has(verdict(12, {}, {}), "found one that reaches element 12"));
  CHECK(has(verdict(1, {3, 4}, {4, 1}), "found one that reaches element 12"));
  CHECK(has(verdict(0, {3, 4}, {4}), "expected a stride for each of 2 dimensions, found 1"));
  CHECK(has(verdict(-1, {3}, {1}), "expected an offset of 0 or more, found -1"));
  CHECK(has(verdict(0, {-3}, {1}), "expected a size of 0 or more, found -3"));
  CHECK(has(verdict(0, {3}, {-1}), "expected a stride of 0 or more, found -1"));
  CHECK(has(verdict(0, {INT64_MAX, INT64_MAX}, {0, 0}), "a shape that overflows"));
  CHECK(has(verdict(0, {INT64_MAX}, {INT64_MAX}), "a shape that overflows"));
  CHECK(has(verdict(0, {8, 8}, {INT64_MAX, 1}),
            "strides inside the storage, found ones that overflow"));
  CHECK(has(verdict(INT64_MAX, {8, 8, 8}, {INT64_MAX / 7, INT64_MAX / 7, 1}), "overflow"));
  CHECK(has(outcome_of(storage("0", -1)), "expected a number of elements of 0 or more, found -1"));
  CHECK(has(outcome_of(storage("0", INT64_MAX, "DoubleStorage")),
            "expected a storage below 2^64 bytes"));
}

TEST_CASE("pickle: what a tensor is rebuilt from") {
  const std::string v2 = global("torch._utils", "_rebuild_tensor_v2"), s = storage("0", 1);
  CHECK(has(outcome_of(call(v2, {s, number(0), numbers({1}), numbers({1})})),
            "expected 6 to 7 arguments, found 4"));
  CHECK(has(outcome_of(call(v2, {"N", number(0), numbers({1}), numbers({1}), "N", "N"})),
            "expected a tensor's storage, found None"));
  CHECK(has(outcome_of(call(v2, {s, "\x88", numbers({1}), numbers({1}), "N", "N"})),
            "expected an offset of 0 or more, found a bool"));
  CHECK(has(outcome_of(call(v2, {s, number(0), list({number(1)}), numbers({1}), "N", "N"})),
            "expected a tuple of numbers, found a list"));
  const auto marked = [&](const char* key, const char* value) {
    return outcome_of(
        call(v2, {s, number(0), numbers({1}), numbers({1}), "N", "N", dict({text(key), value})}));
  };
  CHECK(marked("conj", "\x89") == "accepted");
  CHECK(has(marked("conj", "\x88"),
            "a tensor that is marked \"conj\": save its resolve_conj() instead"));
  CHECK(has(marked("neg", "\x88"), "resolve_neg()"));
  CHECK(has(outcome_of(call(global("torch._utils", "_rebuild_parameter"), {"N", "\x88", "N"})),
            "expected a parameter's tensor, found None"));
  const std::string from_type = global("torch._tensor", "_rebuild_from_type_v2");
  CHECK(has(outcome_of(call(from_type, {from_type, global("torch", "Tensor"),
                                        tuple({"N", "N", "N", "N"}), "N"})),
            "a rebuilding of a rebuilding"));
  CHECK(has(outcome_of(call(from_type, {v2, global("torch", "float32"), tuple({}), "N"})),
            "another class of tensor"));
  CHECK(has(outcome_of("NQ"), "expected a persistent id that names a storage"));
}

TEST_CASE("pickle: memory and time stay bounded") {
  CHECK(has(outcome("\x80\x02" + std::string(kMaxMarks + 1, '(')),
            "expected at most 10000 nested containers"));
  CHECK(has(outcome("\x80\x02" + std::string(kMaxObjects + 1, '}')),
            "expected at most 2000000 objects"));
  CHECK(has(outcome("\x80\x02" + std::string(kMaxValues + 1, 'N')),
            "expected at most 16000000 values"));
  std::string doubling =
      "\x80\x02]Nq\x01(Ne";  // a list that is put into itself: no copy, no recursion
  for (int i = 0; i < 100; ++i) doubling += "q\x02h\x02"s + "a";
  CHECK(outcome(doubling + ".") != "accepted");
  std::string copies = "\x80\x02}q\x01(" + std::string(2000, 'N') + "u0";
  CHECK(outcome(copies) != "accepted");
  // Each call copies the dict before it: found by the number of values, not by running out of
  // memory.
  std::string growing = "\x80\x02}(" + std::string(200'000, 'N') + "u";
  for (int i = 0; i < 1000; ++i)
    growing += "q\x01"s + global("collections", "OrderedDict") + "h\x01\x85R"s;
  CHECK(has(outcome(growing), "expected at most 16000000 values"));
  // Each call keeps what it was called with, and no more.
  std::string calls =
      "\x80\x02" + global("a", "B") + "q\x01"s + "(" + std::string(1000, 'N') + "tq\x02"s;
  for (size_t i = 0; i < kMaxObjects; ++i) calls += "h\x01h\x02R"s;
  CHECK(has(outcome(calls), "expected at most"));
}

namespace {

// Of protocol 4, which only those who ask for it read.
Result<Pickle> read_4(const std::string& bytes) {
  return read_pickle(bytes, 0, {.max_protocol = 5});
}
std::string short_text(std::string_view s) {
  return cat("\x8c", std::string(1, static_cast<char>(s.size())), s);
}

}  // namespace

TEST_CASE("pickle: the opcodes of protocol 4") {
  // Memo 0 is the text, 1 the class; 2 the object, under which the dict holds itself.
  const std::string frame = "\x95\x05\0\0\0\0\0\0\0"s;
  const std::string bytes = "\x80\x04"s + frame + short_text("a.b") + "\x94" + short_text("C") +
                            "\x93\x94)\x81\x94}(" + short_text("set") + "\x8f(K\1K\2\x90" +
                            short_text("frozen") + "(K\3\x91" + short_text("same") + "h\0"s +
                            short_text("long") + "\x8d\x02\0\0\0\0\0\0\0xy"s + short_text("bytes") +
                            "\x8e\x01\0\0\0\0\0\0\0z"s + short_text("keywords") + "h\1)}\x92ub."s;
  const auto p = read_4(bytes);
  REQUIRE(p);
  REQUIRE(p->root().kind == Kind::kOpaque);
  CHECK(p->class_of(p->root()) == "a.b.C");
  const Value& state = p->items(p->root()).back();
  REQUIRE(state.kind == Kind::kDict);
  CHECK(p->items(*p->find(state, "set")).size() == 2);
  CHECK(p->items(*p->find(state, "frozen"))[0].data == 3);
  CHECK(p->text(*p->find(state, "same")) == "a.b");
  CHECK(p->text(*p->find(state, "long")) == "xy");
  CHECK(p->find(state, "bytes")->kind == Kind::kOther);
  CHECK(p->class_of(*p->find(state, "keywords")) == "a.b.C");

  CHECK(has(outcome(bytes), "expected pickle protocol 2 or 3, found 4"));
  CHECK(has(outcome("\x80\x02" + bytes.substr(2)),
            "expected an opcode that torch.save uses, found FRAME"));
  CHECK(has(read_4("\x80\x06N.").error().message, "expected pickle protocol 2 to 5, found 6"));
  CHECK(has(read_4("\x80\x05\x96\0\0\0\0\0\0\0\0."s).error().message, "found BYTEARRAY8"));
  CHECK(has(read_4("\x80\x04K\1K\2\x93."s).error().message,
            "expected the names of a module and of what is in it"));
  CHECK(read_4("\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xff.").error().code == XD_OUT_OF_RANGE);
  CHECK(
      has(read_4("\x80\x04" + short_text("posix") + short_text("system") + "\x93.").error().message,
          "made to attack"));
}

TEST_CASE("pickle: limits of the caller's") {
  const PickleRules few{.max_objects = 2, .max_values = 100};
  CHECK(has(read_pickle(pickle("]]]"), 0, few).error().message, "expected at most 2 objects"));
  const std::string many = pickle(tuple({std::string(200, 'N')}));
  CHECK(has(read_pickle(many, 0, few).error().message, "expected at most 100 values"));
}
