// SPDX-License-Identifier: Apache-2.0
#include "plugins/reader_bin/choose.h"

#include "plugins/reader_bin/state_dict.h"
#include "plugins/torch/read/recipes_for_test.h"
#include <crossdock/testing/memory_host.h>
#include "tests/support/plugin_checks.h"

using namespace crossdock;
using test::has;
using namespace crossdock::reader_bin;
using namespace crossdock::torch_read::recipe;

namespace {

// The model's names in order, or the message of the refusal. What was logged stays in the host.
std::string names_in(test::MemoryHost& host, const std::string& value,
                     const std::string& path = "") {
  const std::string bytes = pickle(value);
  const auto p = torch_read::read_pickle(bytes);
  if (!p) return p.error().message;
  const Host api = host.api();
  const auto model = find_model(api, *p, path);
  if (!model) return model.error().message;
  std::string out;
  for (const ModelTensor& t : *model) out += (out.empty() ? "" : " ") + t.name;
  return out;
}
std::string names_of(const std::string& value, const std::string& path = "") {
  test::MemoryHost host;
  return names_in(host, value, path);
}

const std::string kTwo = tensor(storage("0", 2), 0, {2}, {1});
const std::string kOne = tensor(storage("0", 2), 1, {1}, {1});
const std::string kModel = ordered_dict({text("a.weight"), kTwo});
const std::string kAdam = dict({text("state"), dict({number(0), dict({text("exp_avg"), kTwo})}),
                                text("param_groups"), list({})});
const std::string kArgs =
    global("argparse", "Namespace") + ")\x81" + dict({text("lr"), number(1)}) + "b";

}  // namespace

TEST_CASE("choose: the dict under a name that training loops use") {
  for (const char* key :
       {"state_dict", "model_state_dict", "model", "module", "net", "network", "params", "weights",
        "weight", "model_state", "generator", "ema", "model_ema", "ema_state_dict", "params_ema"}) {
    INFO(key);
    CHECK(names_of(dict({text("epoch"), number(3), text(key), kModel, text("optimizer"), kAdam})) ==
          "a.weight");
    CHECK(names_of(dict({text("loss"), kOne, text(key), kModel})) == "a.weight");
  }
  CHECK(names_of(dict({text("module"), kModel, text("model_state_dict"), dict({})})) == "a.weight");
  CHECK(names_of(dict({text("model"), text("resnet50"), text("state_dict"), kModel})) ==
        "a.weight");
  CHECK(names_of(dict({text("model"), dict({text("encoder"), kModel, text("decoder"), kModel})})) ==
        "encoder.a.weight decoder.a.weight");
  CHECK(names_of(dict({text("state"), dict({text("model"), kModel, text("optimizers"), kAdam})})) ==
        "a.weight");
  CHECK(names_of(dict({text("model"), dict({text("state_dict"), kModel})})) == "a.weight");
  CHECK(names_of(dict({text("model"), kModel + "q\x01"s, text("state_dict"), "h\x01"s})) ==
        "a.weight");  // one dict
  CHECK(names_of(dict({text("model"), kModel, text("criterion"), kModel})) == "a.weight");
}

TEST_CASE("choose: the top level, when it holds parameters") {
  CHECK(names_of(kModel) == "a.weight");
  CHECK(names_of(dict({})).empty());
  CHECK(names_of(dict({text("w"), kTwo, text("loss"), kOne})) ==
        "w loss");  // names say nothing, and nothing else does
  CHECK(names_of(dict({text("model.0.w"), kTwo, text("block"), dict({text("w"), kOne})})) ==
        "model.0.w block.w");
  CHECK(names_of(dict({text("weight"), kTwo, text("bias"), kOne})) == "weight bias");
  test::MemoryHost host;
  CHECK(names_in(host, dict({text("a.weight"), kTwo, text("optimizer"), kAdam})) == "a.weight");
  CHECK(
      host.logged("the top level is taken as the model, and not what lies beside it: \"optimizer\" "
                  "(1 tensors, 2 "));
}

TEST_CASE("choose: a note names what is left out") {
  test::MemoryHost host;
  CHECK(names_in(host, dict({text("model"), kModel, text("ema"), kModel, text("loss"), kOne,
                             text("args"), kArgs, text("optimizer"), kAdam, text("epoch"),
                             number(3), text("rng"), list({kOne, kOne})})) == "a.weight");
  CHECK(
      host.logged("\"model\" is taken as the model, and not what lies beside it: \"ema\" (1 "
                  "tensors, 2 elements), "
                  "\"loss\" (a tensor), \"args\" (\"argparse.Namespace\"), \"optimizer\" (1 "
                  "tensors, 2 elements), "
                  "\"rng\" (2 tensors, 2 elements); --state-dict-path chooses another"));
  test::MemoryHost other;
  CHECK(names_in(other, dict({text("model"), kModel, text("epoch"), number(3), text("config"),
                              dict({})})) == "a.weight");
  CHECK_FALSE(other.logged("is taken as the model"));
  test::MemoryHost nested;
  CHECK(names_in(nested, dict({text("state"), dict({text("model"), kModel, text("x"), kOne}),
                               text("y"), kOne})) == "a.weight");
  CHECK(nested.logged(
      "\"state.model\" is taken as the model, and not what lies beside it: \"state.x\" (a tensor), "
      "\"y\" (a tensor)"));
}

TEST_CASE("choose: where nothing is clear, the message lists the dicts") {
  CHECK(names_of(dict({text("generator"), kModel, text("discriminator"), kModel, text("epoch"),
                       number(1)})) ==
        "expected one dict that is clearly the model, found \"generator\" (1 tensors, 2 elements), "
        "\"discriminator\" "
        "(1 tensors, 2 elements): choose it by name with --state-dict-path NAME, or all of the top "
        "level with "
        "--state-dict-path .");
  for (const std::string& value :
       {dict({text("model"), kModel, text("net"), kModel}),
        dict({text("mine"), kModel, text("optimizer"), kAdam}),
        dict({text("ema"), kModel, text("params_ema"), kModel}),
        dict({text("model"), kModel, text("teacher"), kModel}),
        dict(
            {text("model"), kModel, text("head"), dict({text("0"), dict({text("weight"), kTwo})})}),
        dict({text("encoder"), dict({text("w"), kTwo}), text("decoder"), dict({text("w"), kTwo})}),
        dict({text("head.weight"), kTwo, text("model"), kModel}),
        dict({text("w"), kTwo, text("mine"), kModel})}) {
    CHECK(has(names_of(value), "expected one dict that is clearly the model, found \""));
    CHECK_FALSE(has(names_of(value), "optimizer"));
  }
  CHECK(names_of(dict({text("encoder"), kModel, text("w"), kTwo}), ".") == "encoder.a.weight w");
  CHECK(names_of(dict({text("mine"), kModel, text("other"), kModel}), "mine") == "a.weight");
  CHECK(has(names_of(kAdam), "expected a model, found the state of an optimizer"));
  CHECK(
      has(names_of(dict({text("optimizer"), kAdam})), "found none in the one with \"optimizer\""));
  CHECK(has(names_of(dict({text("state"), kAdam})), "found none in the one with \"state\""));
  CHECK(has(names_of(dict({text("epoch"), number(1)})), "found none in the one with \"epoch\""));
}

TEST_CASE("choose: --state-dict-path") {
  CHECK(names_of(dict({text("a"), dict({text("b"), kModel}), text("state_dict"), kModel}), "a.b") ==
        "a.weight");
  CHECK(names_of(dict({text("a.b"), dict({text("c"), kModel})}), "a.b.c") == "a.weight");
  CHECK(has(names_of(kModel, "a.weight"), "expected a dict at \"a.weight\", found a tensor"));
  CHECK(has(names_of(kModel, "x"), "--state-dict-path: expected \"x\", found \"a.weight\""));
  CHECK(has(names_of(kModel, "a.weight.x"), "expected a dict before \"x\", found a tensor"));
  CHECK(has(names_of(dict({text("m"), kArgs}), "m"),
            "expected a dict at \"m\", found \"argparse.Namespace\""));
}

TEST_CASE("choose: parts of a model are refused as such") {
  const auto with = [](const char* key, int n) { return dict({text(key), number(n)}); };
  CHECK(names_of(dict({text("module"), kModel, text("mp_world_size"), number(1)})) == "a.weight");
  CHECK(names_of(dict({text("module"), kModel, text("mp_world_size"), number(-1)})) == "a.weight");
  CHECK(has(names_of(dict({text("module"), kModel, text("mp_world_size"), number(2)})),
            "expected a whole model, found one of its 2 model-parallel parts (mp_world_size)"));
  for (const char* key : {"tensor_model_parallel_size", "pipeline_model_parallel_size"}) {
    const std::string object = global("argparse", "Namespace") + ")\x81";
    CHECK(names_of(dict({text("model"), kModel, text("args"), object + with(key, 1) + "b"})) ==
          "a.weight");
    CHECK(has(names_of(dict({text("model"), kModel, text("args"), object + with(key, 4) + "b"})),
              "of its 4 model-"));
    CHECK(has(names_of(dict({text("model"), kModel, text("args"), with(key, 2)}), "model"),
              "of its 2 model-"));
  }
}

TEST_CASE("choose: what is no tensor is left out with a warning, and no tensor is lost") {
  test::MemoryHost host;
  CHECK(names_in(host, dict({text("w"), kTwo, text("_extra"), "N", text("n"), number(1),
                             text("args"), kArgs, number(7), text("x")})) == "w");
  CHECK(
      host.logged("4 entries of the state dict are no tensors and are left out: \"_extra\", \"n\", "
                  "\"args\", ..."));
  CHECK(has(names_of(dict({text("w"), kTwo, text("l"), list({number(1), kOne})})),
            "found one in a list at \"l\""));
  CHECK(has(names_of(dict({text("w"), kTwo, text("s"), storage("0", 2)})),
            "found one in a storage at \"s\""));
  CHECK(has(names_of(dict({text("w"), kTwo, number(5), kOne})),
            "found one under an integer in the dict"));
  CHECK(has(names_of(dict({text("w"), kTwo, tuple({text("t")}), tuple({kOne})})),
            "found one under a tuple"));
  CHECK(has(names_of(dict({text("w"), kTwo, kOne, number(1)})), "found one under a tensor"));
  CHECK(has(names_of(dict(
                {text("w"), kTwo, text("s"), call(global("__builtin__", "set"), {list({kOne})})})),
            "found one in a list at \"s\""));
}

TEST_CASE("choose: an object with tensors in the model is refused by its class") {
  const auto in_model = [](const std::string& value) {
    return names_of(dict({text("model"), dict({text("a.weight"), kTwo, text("x"), value})}));
  };
  const std::string type = global("foo", "Bar");
  CHECK(in_model(call(type, {number(1)})) == "a.weight");
  for (const std::string& value :
       {call(type, {kOne}), type + tuple({dict({text("k"), list({kOne})})}) + "\x81",
        type + ")R" + kOne + "b", type + ")R" + kOne + "a", type + ")R" + text("k") + kOne + "s",
        call(type, {call(type, {storage("0", 2)})})}) {
    CHECK(has(
        in_model(value),
        "expected plain tensors and values at \"x\", found an object of the class \"foo.Bar\""));
    CHECK(has(in_model(value), "nothing was run"));
    CHECK(names_of(dict({text("model"), kModel, text("x"), value})) == "a.weight");
  }
  // A list that the object is given, and a tensor that comes into it later.
  const std::string late = "]q\x09" + "0"s + call(type, {"h\x09"}) + "h\x09" + kOne + "a0";
  CHECK(has(in_model(late), "found an object of the class \"foo.Bar\""));
  CHECK(has(in_model(call(global("numpy.core.multiarray", "_reconstruct"), {"N"})),
            "a numpy value: save it as"));
  CHECK(has(in_model(call(global("torch._utils", "_rebuild_sparse_tensor"), {"N"})),
            "a sparse tensor"));
  CHECK(
      has(in_model(call(global("torch._utils", "_rebuild_qtensor"), {"N"})), "a quantised tensor"));
  CHECK(has(in_model(global("__torch__.M", "x") + ")\x81"), "a TorchScript module"));
  CHECK(has(names_of(call(type, {})),
            "expected a dict of named tensors, found an object of the class \"foo.Bar\""));
  CHECK(has(names_of(kTwo),
            "expected a dict of named tensors, found a tensor: save model.state_dict()"));
  CHECK(has(names_of(list({kTwo})), "found a list"));
  // A whole module where its state dict is looked for, as YOLOv5 saves it.
  CHECK(has(names_of(dict({text("epoch"), number(1), text("model"), call(type, {kOne}), text("ema"),
                           kModel})),
            "expected a dict of tensors at \"model\", found an object of the class \"foo.Bar\""));
  CHECK(names_of(dict({text("model"), call(type, {kOne}), text("state_dict"), kModel})) ==
        "a.weight");
}

TEST_CASE("choose: circles and towers") {
  std::string tower = kTwo;
  for (int i = 0; i < 40; ++i) tower = dict({text("d"), tower});
  CHECK(has(names_of(dict({text("model"), tower})), "deep, found more"));
  CHECK(has(names_of("}q\x07("s + text("self") + "h\x07u"s), "deep, found more"));
  CHECK(has(names_of("]q\x07h\x07"s + "a"), "found a list"));
  const std::string circle = global("a", "B") + ")\x81q\x07" + dict({text("me"), "h\x07"}) + "b";
  CHECK(names_of(dict({text("a.weight"), kTwo, text("x"), circle})) == "a.weight");
  // 2^30 ways to reach one tensor, by dicts and by tuples.
  std::string wide = kTwo, tuples = kTwo;
  for (char i = 0; i < 30; ++i) {
    const std::string place{i, 0, 0, 0};
    wide = dict({text("a"), wide + "r" + place, text("b"), "j" + place});
    tuples += "r" + place + "j" + place + "\x86";
  }
  CHECK(has(names_of(dict({text("model"), wide})), "expected at most 4000000 entries"));
  CHECK(has(names_of(dict({text("x"), tuples})), "values, found more"));
  // One long text as the key of many dicts, one in the other or side by side.
  std::string keys = text("a." + std::string(1 << 20, 'x')) + "q\x01" + "0}(";
  for (int i = 0; i < 1000; ++i) keys += "h\x01" + kOne;
  CHECK(has(names_of(keys + "u"), "expected names of at most"));
}
