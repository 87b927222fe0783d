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

constexpr uint64_t kRows = 6, kColumns = 4, kBytes = kRows * kColumns * 4;

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
    t.name = names.substr(begin, end - begin);
    t.dtype = manifest::DType::F32;
    t.shape = {kRows, kColumns};
    t.extents = {{0, 0, kBytes}};
    t.role = manifest::Role::kParameter;
    begin = end + 1;
  }
  return m;
}

void evaluate(const std::vector<transform::Expression>& expressions, const Manifest& m) {
  std::vector<std::byte> out(64), scratch(4096);
  for (size_t i = 0; i < expressions.size(); ++i) {
    const uint64_t n = std::min<uint64_t>(checked_product(m.tensors[i].shape).value_or(0), 16);
    (void)expressions[i].evaluate(
        0, std::span(out).first(n * 4), scratch,
        [&](uint64_t, uint64_t begin, uint64_t count, std::span<std::byte> to) {
          if (begin + count > kRows * kColumns) __builtin_trap();  // beyond the stored tensor
          std::memset(to.data(), 0, to.size());
          return Result<void>();
        });
  }
}

void use(const rules::RuleSet& rules, rules::Names names, Manifest m) {
  const std::vector<Tensor> stored = m.tensors;
  const auto rule = rules::ModuleRule::find(rules, m);
  if (!rule || !*rule) return;
  const auto composed = rules::compose(**rule, names, {}, stored, m);
  if (!composed) return;
  evaluate(composed->expressions, m);
  std::vector<std::string> notes;
  if (!rules::give_class_names(**rule, m, notes)) return;
  (void)rules::check_against_config(**rule, m, false);
  (void)rules::find_tied(**rule, m);
  (void)rules::describe_module(**rule, m);
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
  use(*rules, rules::Names::kModule, m);
  use(*rules, rules::Names::kFile, m);
  Manifest laid_out = m;
  const auto read = [](uint64_t, uint64_t, std::span<std::byte>) { return Result<void>(); };
  if (const auto done = rules::lay_out(*rules, false, read, laid_out))
    evaluate(done->expressions, laid_out);
  return 0;
}
