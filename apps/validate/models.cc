// SPDX-License-Identifier: Apache-2.0
#include "apps/validate/models.h"

#include <crossdock/plugin.h>
#include <crossdock/bytes.hpp>
#include <crossdock/dtype.hpp>

#include <bit>
#include <random>

namespace crossdock::validate {

namespace {

using manifest::DType;
using manifest::Role;

class Maker {
 public:
  Maker(std::string name, uint64_t caps, uint64_t seed) : random_(seed), caps_(caps) {
    model_.name = std::move(name);
    model_.manifest.schema_version = manifest::kSchemaVersion;
    model_.manifest.source.format = "made";
  }
  uint64_t add(const std::string& name, DType dtype, std::vector<uint64_t> shape, Role role) {
    auto& tensors = model_.manifest.tensors;
    const uint64_t index = tensors.size();
    manifest::Tensor& t = tensors.emplace_back();
    t.name = name;
    t.dtype = dtype;
    t.shape = std::move(shape);
    t.role = role;
    model_.values.push_back(values(dtype, checked_product(t.shape).value()));
    return index;
  }
  Maker& weight(const std::string& name, DType dtype, std::vector<uint64_t> shape) {
    const uint64_t index = add(name, dtype, std::move(shape), Role::kParameter);
    parameters_.push_back(index);
    return *this;
  }
  Maker& buffer(const std::string& name, DType dtype, std::vector<uint64_t> shape) {
    add(name, dtype, std::move(shape), Role::kBuffer);
    return *this;
  }
  Maker& file(manifest::AuxKind kind, const std::string& name, const std::string& text) {
    model_.manifest.aux_files.push_back({kind, name, manifest::Bytes{text}});
    return *this;
  }
  // The optimizer's moments of each parameter so far.
  Maker& moments() {
    const auto parameters = parameters_;
    for (const uint64_t p : parameters) {
      for (const char* kind : {"exp_avg", "exp_avg_sq"}) {
        const manifest::Tensor t = model_.manifest.tensors[p];
        const uint64_t state =
            add(cat(kind, "/", t.name), DType::F32, t.shape, Role::kOptimizerState);
        model_.manifest.training.moments.push_back({kind, p, state});
      }
    }
    model_.manifest.training.step = 7;
    return *this;
  }
  Model done() {
    manifest::Manifest& m = model_.manifest;
    if (caps_ & (XD_CAP_MODULE | XD_CAP_TIED_NAMES)) {
      for (uint64_t i = 0; i < m.tensors.size(); ++i) {
        if (m.tensors[i].role != Role::kOptimizerState) m.module.push_back({m.tensors[i].name, i});
      }
    }
    if (caps_ & (XD_CAP_MODULE | XD_CAP_TRAINING_STATE)) {
      m.training.optimizer = "torch.optim.AdamW";
      m.training.groups.emplace_back().tensors = parameters_;
    }
    return std::move(model_);
  }

 private:
  // Numbers that every type has room for, none of them alike for long.
  std::string values(DType dtype, uint64_t n) {
    std::string out;
    for (uint64_t i = 0; i < n; ++i) {
      const float value = static_cast<float>(random_() % 2000) / 16 - 60;
      switch (dtype) {
        case DType::F32:
          put_le(out, std::bit_cast<uint32_t>(value));
          break;
        case DType::F64:
          put_le(out, std::bit_cast<uint64_t>(static_cast<double>(value)));
          break;
        case DType::BF16:
          put_le(out, static_cast<uint16_t>(std::bit_cast<uint32_t>(value) >> 16));
          break;
        case DType::F16:  // 1 to 2, whatever the mantissa is
          put_le(out, static_cast<uint16_t>(0x3c00 | random_() % 1024));
          break;
        case DType::BOOL:
          out += static_cast<char>(random_() % 2);
          break;
        default:
          for (unsigned b = 0; b < manifest::info(dtype).bits / 8; ++b)
            out += static_cast<char>(b == 0 ? random_() % 100 : 0);
      }
    }
    return out;
  }

  std::mt19937_64 random_;
  const uint64_t caps_;
  Model model_;
  std::vector<uint64_t> parameters_;
};

constexpr char kConfig[] = R"({"architectures": ["MadeForTests"], "torch_dtype": "bfloat16"})";

}  // namespace

std::vector<Model> models_for(uint64_t caps, uint64_t seed) {
  std::vector<Model> out;
  out.push_back(Maker("weights", caps, seed)
                    .weight("embed.weight", DType::BF16, {40, 16})
                    .weight("layers.0.proj.weight", DType::BF16, {16, 24})
                    .weight("layers.0.proj.bias", DType::BF16, {24})
                    .weight("layers.1.proj.weight", DType::BF16, {3, 5, 7})
                    .weight("norm.weight", DType::BF16, {16})
                    .file(manifest::AuxKind::kConfig, "config.json", kConfig)
                    .file(manifest::AuxKind::kTokenizer, "tokenizer.json", "{}")
                    .done());
  out.push_back(Maker("float32", caps, seed)
                    .weight("a.weight", DType::F32, {700, 401})
                    .weight("b.weight", DType::F32, {1})
                    .weight("a.bias", DType::F32, {401})
                    .done());
  out.push_back(Maker("several types and buffers", caps, seed)
                    .weight("w", DType::F32, {6, 4})
                    .weight("h", DType::F16, {6, 4})
                    .weight("b", DType::BF16, {9})
                    .buffer("positions", DType::I64, {5})
                    .buffer("mask", DType::BOOL, {7})
                    .buffer("running_mean", DType::F32, {4})
                    .done());
  out.push_back(Maker("one large tensor", caps, seed)
                    .weight("large.weight", DType::BF16, {1024, 600})
                    .done());
  out.push_back(Maker("odd names", caps, seed)
                    .weight("x", DType::F32, {2})
                    .weight("with space.weight", DType::F32, {2})
                    .weight("caf\u00e9.weight", DType::F32, {2})
                    .weight("\"quoted\\.weight", DType::F32, {2})
                    .done());
  out.push_back(Maker("a scalar", caps, seed)
                    .weight("s", DType::F32, {})
                    .weight("w", DType::F32, {2})
                    .done());
  out.push_back(Maker("an empty tensor", caps, seed)
                    .weight("w", DType::F32, {2})
                    .buffer("e", DType::F32, {0, 3})
                    .done());
  if (caps & XD_CAP_TRAINING_STATE)
    out.push_back(Maker("with optimizer state", caps, seed)
                      .weight("w", DType::F32, {6, 4})
                      .weight("b", DType::F32, {4})
                      .moments()
                      .done());
  if (caps & XD_CAP_QUANTISED)
    out.push_back(Maker("quantised", caps, seed)
                      .weight("w", DType::F8_E4M3, {6, 4})
                      .buffer("w_scale_inv", DType::F32, {1, 1})
                      .done());
  return out;
}

}  // namespace crossdock::validate
