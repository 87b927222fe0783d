// SPDX-License-Identifier: Apache-2.0

// Any tensors that look quantised, dequantised, and a few elements of each evaluated. What is read
// must be there; after an error the model is as it was.
#include "core/model/check.h"
#include "core/quantised/dequantise.h"
#include "tests/fuzz/quantised_input.h"

#include <cstring>
#include <memory>

using namespace crossdock;
using manifest::DType;
using manifest::Manifest;
using manifest::Tensor;
using manifest::Value;
using manifest::ValueList;
using manifest::ValueMap;
using transform::Expression;

namespace {

constexpr uint64_t kFileBytes = uint64_t{1} << 59;

void require(bool holds) {
  if (!holds) __builtin_trap();
}

Value number(uint64_t n) { return {static_cast<int64_t>(n)}; }

Value config_of(const fuzz::Model& model) {
  ValueMap weights, quantisation, config;
  quantisation.entries.push_back({"quant_method", {std::string(model.method)}});
  if (model.bits > 0) {
    quantisation.entries.push_back({"bits", number(model.bits)});
    weights.entries.push_back({"num_bits", number(model.bits)});
  }
  if (model.group > 0) {
    quantisation.entries.push_back({"group_size", number(model.group)});
    weights.entries.push_back({"group_size", number(model.group)});
  }
  if (model.block > 0)
    quantisation.entries.push_back(
        {"weight_block_size", {ValueList{{number(model.block), number(model.block)}}}});
  if (model.is_gptq_v2)
    quantisation.entries.push_back({"checkpoint_format", {std::string("gptq_v2")}});
  ValueMap group, groups;
  group.entries.push_back({"weights", {std::move(weights)}});
  groups.entries.push_back({"group_0", {std::move(group)}});
  quantisation.entries.push_back({"config_groups", {std::move(groups)}});
  if (!model.method.empty())
    config.entries.push_back({"quantization_config", {std::move(quantisation)}});
  return {std::move(config)};
}

// Turned or expanded as torch.save keeps it.
void give_strides(const fuzz::Part& part, Tensor& t) {
  uint64_t n = 1;
  t.strides.resize(t.shape.size());
  for (size_t i = 0; i < t.shape.size(); ++i) {
    const size_t dim = part.is_turned ? i : t.shape.size() - 1 - i;
    const bool is_repeated = part.is_expanded && dim == 0;
    t.strides[dim] = is_repeated ? 0 : static_cast<int64_t>(n);
    if (!is_repeated) n *= t.shape[dim];
  }
  t.storage_elements = n;
}

Tensor tensor_of(const fuzz::Part& part) {
  Tensor t;
  t.name = part.name;
  t.dtype = part.dtype;
  t.shape = part.shape;
  const uint64_t bits = manifest::info(part.dtype).bits;
  if (part.is_as_long && bits >= 8) t.shape = {part.content.size() * 8 / bits};
  if (!t.shape.empty() && (part.is_turned || part.is_expanded)) give_strides(part, t);
  t.extents = {{0, 0, kFileBytes}};
  return t;
}

uint64_t elements(const Tensor& t) {
  return t.strides.empty() ? model::element_count(t) : t.storage_elements;
}

struct Source {
  std::vector<Tensor> tensors;
  std::vector<std::string> contents;

  Result<void> read(uint64_t tensor, uint64_t begin, uint64_t count,
                    std::span<std::byte> out) const {
    const Tensor& t = tensors.at(tensor);
    const uint64_t bits = manifest::info(t.dtype).bits;
    require(count <= elements(t) && begin <= elements(t) - count);
    require(out.size() == count * bits / 8);
    const std::string content = contents[tensor].empty() ? std::string(1, '\0') : contents[tensor];
    const size_t period = content.size();
    for (size_t i = 0; i < std::min(out.size(), period); ++i)
      out[i] = static_cast<std::byte>(content[(begin * bits / 8 + i) % period]);
    for (size_t done = period; done < out.size(); done *= 2)
      std::memcpy(&out[done], out.data(), std::min(done, out.size() - done));
    return {};
  }
};

// From the first on, from the middle, and to the last.
void evaluate(const Expression& expression, const Source& source, uint64_t count) {
  const auto& root = expression.root();
  const uint64_t bits = manifest::info(root.dtype).bits, n = *checked_product(root.shape);
  if (bits % 8 != 0) return;
  count = std::min(count, n);
  for (const uint64_t begin : {uint64_t{0}, (n - count) / 2, n - count}) {
    // Nothing more than is promised to be enough, so that the sanitizer sees what is beyond.
    const size_t n_scratch = expression.scratch_blocks() * transform::kMinBlock;
    const auto scratch = std::make_unique_for_overwrite<std::byte[]>(n_scratch);
    const auto out = std::make_unique_for_overwrite<std::byte[]>(count * bits / 8);
    (void)expression.evaluate(
        begin, {out.get(), count * bits / 8}, {scratch.get(), n_scratch},
        [&](uint64_t tensor, uint64_t from, uint64_t some, std::span<std::byte> to) {
          return source.read(tensor, from, some, to);
        });
  }
}

void use(const fuzz::Model& model, const Source& source, std::vector<Expression> made, Manifest m,
         int more) {
  const auto wanted = std::array<std::optional<DType>, 4>{std::nullopt, DType::BF16, DType::F16,
                                                          DType::F32}[model.wanted];
  const Manifest before = m;
  const auto plain = quantised::dequantise(
      wanted,
      [&](uint64_t tensor, uint64_t count, std::span<std::byte> out) {
        return source.read(tensor, 0, count, out);
      },
      made, source.tensors, m);
  if (!plain || plain->expressions.empty()) {
    require(m == before);
    return;
  }
  require(plain->expressions.size() == m.tensors.size());
  require(model::check(m).has_value());
  for (size_t i = 0; i < m.tensors.size(); ++i) {
    if (!plain->expressions[i].as_stored()) {
      require(plain->expressions[i].root().shape == m.tensors[i].shape);
      require(plain->expressions[i].root().dtype == m.tensors[i].dtype);
    }
    evaluate(plain->expressions[i], source, 1 + model.count * 8u);
  }
  // What is left may look quantised again.
  if (more > 0) use(model, source, plain->expressions, m, more - 1);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const fuzz::Model model =
      fuzz::model_of(std::string_view(reinterpret_cast<const char*>(data), size));
  Manifest m;
  m.source.format = "f";
  m.source.files = {{"x", kFileBytes, ""}};
  m.source.config = config_of(model);
  Source source;
  for (const fuzz::Part& part : model.parts) {
    m.tensors.push_back(tensor_of(part));
    if (!model::check(m)) {  // none that a reader may give
      m.tensors.pop_back();
      continue;
    }
    source.contents.push_back(part.content);
  }
  source.tensors = m.tensors;
  std::vector<Expression> made;
  for (uint64_t i = 0; model.is_made && i < m.tensors.size(); ++i)
    made.push_back(transform::stored_tensor(i, m.tensors[i]));
  use(model, source, std::move(made), m, 2);
  return 0;
}
