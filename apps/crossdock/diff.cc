// SPDX-License-Identifier: Apache-2.0
#include "core/verify/difference.h"

#include "apps/crossdock/log.h"
#include "apps/crossdock/progress.h"
#include "apps/crossdock/verb.h"
#include "apps/crossdock/verbs.h"
#include "core/base/json_writer.h"
#include "core/base/text.h"
#include "core/convert/request.h"

#include <fmt/format.h>

#include <cmath>
#include <iostream>

namespace crossdock::app {

namespace {

using verify::Difference;
using verify::TensorDifference;

constexpr char kHelp[] =
    R"(crossdock diff A B: how two checkpoints differ, of any two formats that can be read

Tensors are the same when their names are, as `inspect --tensors` shows them; --names gives both
the names of the running class or of Hugging Face's files, so that experts stacked meet experts
one by one. An optimizer's state is compared where both have one, and no --names is given. Values
of one type are the same when their bits are, NaN too. Others are compared as numbers:

  differ     elements that differ, -0 from 0 too, though by 0
  max abs    the largest difference of two elements; inf where one of them is Inf or NaN
  max ulp    the same in steps between neighbours of the coarser type, which has fewer bits of
             mantissa; values of the finer one are rounded to it first. For BF16, F16, F32, F64

Exit code: 0 the same names, shapes, types and values; 1 others, or one cannot be read;
2 wrong use.

)";

struct Request {
  std::string a, b, names;
  bool json = false, all = false, ignore_types = false;
  uint64_t memory = 0;
  unsigned threads = 1;
  verify::OpenOptions open_a, open_b;
};

// "BF16 [4, 2]", and of both where they are not alike.
std::string what_it_is(const TensorDifference& t) {
  const auto of = [&t](int i) {
    return cat(manifest::name(t.dtype[i]), " ", base::list_text(t.shape[i]));
  };
  return of(0) == of(1) ? of(0) : of(0) + " / " + of(1);
}

std::string how_it_differs(const TensorDifference& t) {
  if (!t.is_comparable)
    return t.shape[0] != t.shape[1] ? "other shapes" : "types that cannot be compared";
  std::string out = t.n_differ == 0 ? "same values" : "";
  if (t.n_differ > 0) {
    const double share = 100 * static_cast<double>(t.n_differ) / static_cast<double>(t.n_elems);
    out = fmt::format("{} of {} differ ({:.3g}%), max abs {:.6g}", t.n_differ, t.n_elems, share,
                      t.max_abs);
    if (t.max_ulp) out += fmt::format(", max ulp {}", *t.max_ulp);
    std::vector<uint64_t> at(t.shape[0].size());
    uint64_t left = t.first;
    for (size_t dim = at.size(); dim-- > 0;) {
      at[dim] = left % t.shape[0][dim];
      left /= t.shape[0][dim];
    }
    out += fmt::format(", first {}: {}", base::list_text(at), t.first_text);
  }
  if (t.n_nan[0] + t.n_nan[1] > 0) out += fmt::format(", NaN: {} / {}", t.n_nan[0], t.n_nan[1]);
  return out;
}

void print_only(const char* side, const std::vector<std::string>& names, bool all) {
  constexpr size_t kMost = 20;
  for (size_t i = 0; i < names.size() && (all || i < kMost); ++i)
    fmt::print("only in {}: {}\n", side, base::printable(names[i]));
  if (!all && names.size() > kMost)
    fmt::print("only in {}: ... and {} more\n", side, names.size() - kMost);
}

void print_table(const Difference& d, const Request& request) {
  print_only("A", d.only_in_a, request.all);
  print_only("B", d.only_in_b, request.all);
  size_t n_other = 0;
  for (const TensorDifference& t : d.tensors) {
    const bool same = t.is_same(request.ignore_types);
    n_other += same ? 0 : 1;
    if (same && !request.all) continue;
    fmt::print("{}  {}  {}\n", base::printable(t.name), what_it_is(t), how_it_differs(t));
  }
  if (d.is_same(request.ignore_types)) {
    fmt::print("the same: {} tensors\n", d.tensors.size());
  } else {
    fmt::print("different: {} tensors are the same, {} differ, {} only in A, {} only in B\n",
               d.tensors.size() - n_other, n_other, d.only_in_a.size(), d.only_in_b.size());
  }
}

void write_tensor(base::JsonWriter& json, const TensorDifference& t, bool same) {
  json.begin_object().member("name", t.name).member("same", same);
  const char* sides[] = {"a", "b"};
  for (const int i : {0, 1}) {
    json.key(sides[i]).begin_object();
    json.member("dtype", manifest::name(t.dtype[i])).member("shape", t.shape[i]);
    if (t.is_comparable) json.member("nan", t.n_nan[i]);
    json.end_object();
  }
  if (t.is_comparable) {
    json.member("elements", t.n_elems).member("differ", t.n_differ);
    if (std::isfinite(t.max_abs)) {
      json.member("max_abs", t.max_abs);
    } else {
      json.member("max_abs", "inf");
    }
    if (t.max_ulp) json.member("max_ulp", *t.max_ulp);
    if (t.n_differ > 0) json.member("first", t.first).member("first_text", t.first_text);
  }
  json.end_object();
}

void print_json(const Difference& d, const Request& request) {
  base::JsonWriter json;
  json.begin_object().member("same", d.is_same(request.ignore_types));
  json.member("only_in_a", d.only_in_a).member("only_in_b", d.only_in_b);
  json.key("tensors").begin_array();
  for (const TensorDifference& t : d.tensors)
    write_tensor(json, t, t.is_same(request.ignore_types));
  json.end_array().end_object();
  fmt::print("{}", std::move(json).take());
}

// The other names that might make two checkpoints meet.
std::string names_hint(const Difference& d, const Request& request) {
  if (!request.names.empty() || d.only_in_a.empty() || d.only_in_b.empty()) return "";
  return "Names differ: --names module (or file) gives both those of the class that config.json "
         "names, where it does.";
}

Result<int> run(const Request& request, const Session& session, Progress& progress) {
  base::Memory memory(request.memory);
  const auto open = [&](const std::string& source, const verify::OpenOptions& options,
                        const char* side) -> Result<verify::Opened> {
    auto opened = verify::open_checkpoint(session.registry(), io::Os::real(), memory, cancelled,
                                          source, options);
    if (!opened) return std::move(opened).error().in(side);
    for (const std::string& note : opened->notes)
      say(fmt::format("note: {}: {}\n", side, base::printable(note)));
    return opened;
  };
  XD_TRY_SET(const verify::Opened a, open(request.a, request.open_a, "A"));
  XD_TRY_SET(const verify::Opened b, open(request.b, request.open_b, "B"));
  XD_TRY_SET(const Difference d, verify::compare_checkpoints({memory, request.threads, cancelled,
                                                              [&](uint64_t done, uint64_t total) {
                                                                progress.update(done, total);
                                                              }},
                                                             a, b));
  progress.clear();
  if (const std::string hint = names_hint(d, request); !hint.empty())
    say(fmt::format("note: {}\n", hint));
  if (!d.note.empty()) say(fmt::format("note: {}\n", d.note));
  request.json ? print_json(d, request) : print_table(d, request);
  return d.is_same(request.ignore_types) ? kDone : kFailed;
}

void add_options(po::options_description& options, Request& r) {
  options.add_options()("help,h", "print this")  //
      ("names", po::value(&r.names)->value_name("module|file"),
       "give both the names and shapes of the running class of transformers 5, or of Hugging "
       "Face's files")  //
      ("ignore-types", po::bool_switch(&r.ignore_types),
       "tensors of other types are the same where all numbers are equal")  //
      ("all", po::bool_switch(&r.all),
       "a line for each tensor, also for those that are the same")  //
      ("json", po::bool_switch(&r.json), "print JSON")              //
      ("from", po::value(&r.open_a.from)->value_name("FORMAT")->default_value("auto"),
       "format to read A in")  //
      ("from-b", po::value(&r.open_b.from)->value_name("FORMAT")->default_value("auto"),
       "format to read B in")  //
      ("memory", po::value<Size>()->value_name("SIZE")->default_value({1u << 30}),
       "budget for all buffers");
  add_work_flags(options, r.threads);
  add_rule_flags(options, r.open_a.rules, r.open_a.keep_unmatched);
  add_dequant_flag(options);
}

// What the words that were given say beyond their own types; empty: all is well.
std::string take_values(const po::variables_map& values, Request& r, Progress::Style& style) {
  if (!values.count("a") || !values.count("b")) return "expected A and B";
  r.a = values["a"].as<std::string>();
  r.b = values["b"].as<std::string>();
  r.memory = given_memory(values);
  style = Progress::style_of(check_work_flags(values, r.threads));
  if (!r.names.empty() && r.names != "module" && r.names != "file")
    return "--names: expected module or file, found " + r.names;
  r.open_a.dequant_dtype = given_dequant_dtype(values);
  if (!r.names.empty())
    r.open_a.names = r.names == "file" ? rules::Names::kFile : rules::Names::kModule;
  const std::string from_b = r.open_b.from;
  r.open_b = r.open_a;
  r.open_b.from = from_b;
  return "";
}

std::vector<OptionGroup> option_groups(const plugin::Registry&,
                                       const std::vector<const plugin::Plugin*>&) {
  Request request;
  const auto options = std::make_shared<po::options_description>();
  add_options(*options, request);
  return {{"Options", options}};
}

int run_verb(const std::vector<std::string>& args) {
  Request request;
  po::options_description options("Options", kHelpWidth);
  add_options(options, request);
  Progress::Style style{};
  try {
    const po::variables_map values = parse(args, options, {"a", "b"});
    if (values.count("help")) {
      std::cout << kHelp << options;
      return kDone;
    }
    if (const std::string wrong = take_values(values, request, style); !wrong.empty())
      return usage_error(wrong, "diff");
  } catch (const po::error& e) {
    return usage_error(e.what(), "diff");
  }
  const Session session = open_session(args, 64 << 20);
  session.warn_of_refusals();
  Progress progress(style == Progress::Style::kPlain && request.json ? Progress::Style::kNone
                                                                     : style);
  const auto code = run(request, session, progress);
  progress.clear();
  return code ? *code : fail(code.error());
}

}  // namespace

constinit const Verb kDiff{"diff", "A B",    "how two checkpoints differ, of any two formats",
                           kHelp,  run_verb, option_groups};

}  // namespace crossdock::app
