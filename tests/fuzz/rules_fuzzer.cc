// SPDX-License-Identifier: Apache-2.0

// Any text as a rule of the user's, behind a NUL byte the names of a small model's tensors:
// composed both ways, named, checked, described, and a few elements of each tensor evaluated.
#include "core/rules/class_names.h"
#include "core/rules/compose.h"
#include "core/rules/config_check.h"
#include "core/rules/layout.h"
#include "core/rules/module.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

using namespace crossdock;
using manifest::Manifest;
using manifest::Tensor;

namespace {

constexpr uint64_t kBytes = 1 << 20;

Manifest model_of(std::string_view names) {
  Manifest m;
  m.source.format = "f";
  m.source.files = {{"x", kBytes, ""}};
  manifest::ValueMap config;
  config.entries = {{"model_type", {std::string("x")}},
                    {"architectures", {manifest::ValueList{{{std::string("X")}}}}},
                    {"n", {int64_t{2}}},
                    {"yes", {true}}};
  m.source.config.kind = std::move(config);
  for (size_t begin = 0; begin < names.size() && m.tensors.size() < 32;) {
    const size_t end = std::min(names.find('\n', begin), names.size());
    Tensor& t = m.tensors.emplace_back();
    const std::string_view line = names.substr(begin, end - begin);
    t.name = line.substr(0, line.find(' '));
    for (size_t at = t.name.size(); at + 1 < line.size() && t.shape.size() < 5; at += 2)
      t.shape.push_back(static_cast<uint8_t>(line[at + 1] - '0') % 10);
    if (t.shape.empty()) t.shape = {6, 4};
    t.dtype = manifest::DType::F32;
    t.extents = {{0, 0, *checked_product(t.shape) * 4}};
    t.role = manifest::Role::kParameter;
    if (m.tensors.size() == 3) m.alias_groups = {{{0, 2}}};
    begin = end + 1;
  }
  return m;
}

void evaluate(const std::vector<transform::Expression>& expressions,
              const std::vector<Tensor>& stored, const Manifest& m) {
  std::vector<std::byte> out(64), scratch(4096);
  for (size_t i = 0; i < expressions.size(); ++i) {
    const uint64_t n = std::min<uint64_t>(checked_product(m.tensors[i].shape).value_or(0), 16);
    (void)expressions[i].evaluate(
        0, std::span(out).first(n * 4), scratch,
        [&](uint64_t tensor, uint64_t begin, uint64_t count, std::span<std::byte> to) {
          if (begin + count > *checked_product(stored.at(tensor).shape)) __builtin_trap();
          std::memset(to.data(), 0, to.size());
          return Result<void>();
        });
  }
}

void use(const rules::ModuleRule& rule, const std::vector<Tensor>& stored,
         std::vector<transform::Expression> made, rules::Names names, Manifest m, int more) {
  auto composed = rules::compose(rule, names, made, stored, m);
  if (!composed) return;
  if (!composed->expressions.empty()) made = std::move(composed->expressions);
  evaluate(made, stored, m);
  Manifest named = m;
  std::vector<std::string> notes;
  if (rules::give_class_names(rule, named, notes)) {
    (void)rules::check_against_config(rule, named, false);
    (void)rules::find_tied(rule, named);
    (void)rules::describe_module(rule, named);
  }
  const bool was_module = names == rules::Names::kModule;
  if (more > 0)
    use(rule, stored, made, was_module ? rules::Names::kFile : rules::Names::kModule, m, more - 1);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view all(reinterpret_cast<const char*>(data), size);
  const size_t end = std::min(all.find('\0'), all.size());
  const int file = memfd_create("rule", 0);
  if (file < 0 || write(file, data, end) != static_cast<ssize_t>(end)) __builtin_trap();
  const auto rules = rules::RuleSet::load({{"/proc/self/fd/" + std::to_string(file)}, {}});
  close(file);
  if (!rules) return 0;
  const Manifest m = model_of(all.substr(std::min(end + 1, all.size())));
  const auto rule = rules::ModuleRule::find(*rules, m);
  if (rule && *rule) {
    use(**rule, m.tensors, {}, rules::Names::kModule, m, 2);
    use(**rule, m.tensors, {}, rules::Names::kFile, m, 0);
  }
  Manifest laid_out = m;
  const auto read = [](uint64_t, uint64_t, std::span<std::byte>) { return Result<void>(); };
  if (const auto done = rules::lay_out(*rules, false, read, laid_out))
    evaluate(done->expressions, m.tensors, laid_out);
  return 0;
}
