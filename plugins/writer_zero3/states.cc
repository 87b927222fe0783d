// SPDX-License-Identifier: Apache-2.0

// The dicts hold what DeepSpeed 0.19.8 saves itself at stage 3, in its order, for a run that has
// not begun. FORMAT.md says which keys loading needs.
#include "plugins/writer_zero3/states.h"

#include "plugins/torch/write/deepspeed_states.h"
#include "plugins/torch/write/pickle_writer.h"
#include "plugins/torch/write/training.h"

namespace crossdock::writer_zero3 {

using manifest::DType;
using manifest::Manifest;
using torch_write::Content;
using torch_write::EmptyDict;
using torch_write::EmptyList;
using torch_write::None;
using torch_write::PickledTensor;
using torch_write::PickleWriter;
using torch_write::StorageSource;

namespace {

using torch_write::kScalerModule;

bool is_dynamic(const Settings& s) { return s.dtype == DType::F16 && s.loss_scale.fixed == 0; }

// Loading assigns the object as it is, and every backward() uses it. A run that goes on keeps what
// its scale has come to, and of how it changes what --ds-config does not say.
void put_loss_scaler(PickleWriter& p, const Settings& s, const torch_write::Training& training) {
  const LossScale& scale = s.loss_scale;
  if (!is_dynamic(s)) {
    p.object(kScalerModule, "LossScaler", [&] {
      p.entry("cur_scale", s.dtype == DType::F16 ? scale.fixed : 1.0);
      p.entry("dynamic", false);
    });
    return;
  }
  const auto of_run = [&](const char* name, auto fallback) {
    const manifest::Value* value = torch_write::loss_scaler_value(training, name);
    p.entry(name, [&] { value ? torch_write::put_value(p, *value) : p.put(fallback); });
  };
  const auto of_config = [&](const char* name, auto value, auto unless_told) {
    s.config || value != unless_told ? p.entry(name, value) : of_run(name, value);
  };
  constexpr LossScale kUnlessTold;
  p.object(kScalerModule, "DynamicLossScaler", [&] {
    of_run("cur_scale", int64_t{1} << scale.power);
    p.entry("dynamic", true);
    of_run("cur_iter", 0);
    of_run("last_overflow_iter", -1);
    of_config("scale_factor", 2.0, 2.0);
    of_config("scale_window", scale.window, kUnlessTold.window);
    of_config("min_scale", scale.least, kUnlessTold.least);
    of_config("delayed_shift", scale.hysteresis, kUnlessTold.hysteresis);
    of_run("cur_hysteresis", scale.hysteresis);
    of_config("consecutive_hysteresis", scale.consecutive_hysteresis,
              kUnlessTold.consecutive_hysteresis);
    of_config("raise_error_at_min_scale", true, true);
    p.put("dtype");
    p.global("torch", "float16");
  });
}

// torch counts "parameters" through all groups; ZeRO-3's are the sub-groups.
void put_param_groups(PickleWriter& p, const Manifest& model, const Layout& layout) {
  p.list([&] {
    for (size_t g = 0; g < model.training.groups.size(); ++g) {
      p.dict([&] {
        torch_write::put_hyper_parameters(p, model.training.groups[g]);
        p.entry("params", [&] {
          p.list([&] {
            for (size_t i = 0; i < layout.sub_groups.size(); ++i) {
              if (layout.sub_groups[i].group == g) p.put(i);
            }
          });
        });
      });
    }
  });
}

void put_shapes(PickleWriter& p, const Manifest& model, const std::vector<uint64_t>& indexes) {
  p.ordered_dict([&] {
    for (const uint64_t i : indexes) {
      p.put(model.tensors[i].target());
      p.torch_size(model.tensors[i].shape);
    }
  });
}

}  // namespace

Content optimizer_states(const Manifest& model, const Layout& layout, const Settings& settings,
                         uint64_t rank) {
  // The flat groups first: all that comes from the source is then one run of the file.
  std::vector<StorageSource> storages;
  for (const SubGroup& sub : layout.sub_groups) {
    StorageSource flat{StorageSource::From::kTensors,
                       sub.n_elems * sizeof(float),
                       DType::F32,
                       {},
                       settings.dtype == DType::F16};
    for (const uint64_t i : sub.parameters)
      flat.segments.push_back(piece(model, i, rank, settings.world_size, DType::F32));
    storages.push_back(std::move(flat));
  }
  const torch_write::Training training(model);
  const auto add = [&](StorageSource storage) {
    storages.push_back(std::move(storage));
    return storages.size() - 1;
  };
  // A rank's piece of a moment, of all parameters of a sub-group; zeros where there is none.
  const auto moment_of = [&](const SubGroup& sub, const std::string& kind) {
    StorageSource out =
        torch_write::zeros(sub.n_elems, settings.dense_moments ? StorageSource::From::kWrittenZeros
                                                               : StorageSource::From::kZeros);
    if (!training.has_moments()) return out;
    out.from = StorageSource::From::kTensors;
    for (const uint64_t i : sub.parameters) {
      const auto& kept = training.moments_of(i);
      if (const auto it = kept.find(kind); it != kept.end()) {
        out.segments.push_back(piece(model, it->second, rank, settings.world_size, DType::F32));
      } else {
        out.segments.push_back(
            {i, 0, 0, elements_per_rank(model.tensors[i], settings.world_size), false});
      }
    }
    return out;
  };
  const bool counts_in_tensor =
      settings.optimizer == Optimizer::kAdamW || settings.optimizer == Optimizer::kAdam;
  PickleWriter p;
  const auto state_of = [&](const SubGroup& sub) {
    p.dict([&] {
      if (counts_in_tensor) {
        p.entry("step",
                PickledTensor::dense(
                    DType::F32, {}, add(torch_write::number(static_cast<float>(training.step())))));
      } else {
        p.entry("step", training.step());
      }
      for (const char* name : {"exp_avg", "exp_avg_sq"})
        p.entry(name, PickledTensor::dense(DType::F32, {sub.n_elems}, add(moment_of(sub, name))));
    });
  };
  p.dict([&] {
    p.entry("optimizer_state_dict", [&] {
      p.dict([&] {
        p.entry("zero_stage", 3);
        p.put("loss_scaler");
        put_loss_scaler(p, settings, training);
        p.entry("dynamic_loss_scale", is_dynamic(settings));
        p.entry("overflow", false);
        p.entry("partition_count", settings.world_size);
        p.entry("optimizer_state_dict", [&] {
          p.dict([&] {
            p.entry("state", [&] {
              p.dict([&] {
                for (size_t i = 0; i < layout.sub_groups.size(); ++i)
                  p.entry(i, [&] { state_of(layout.sub_groups[i]); });
              });
            });
            p.entry("param_groups", [&] { put_param_groups(p, model, layout); });
          });
        });
        p.entry("fp32_flat_groups", [&] {
          p.list([&] {
            for (size_t i = 0; i < layout.sub_groups.size(); ++i)
              p.put(PickledTensor::dense(DType::F32, {layout.sub_groups[i].n_elems}, i));
          });
        });
      });
    });
    p.entry("ds_config", EmptyDict{});
    p.entry("ds_version", torch_write::kDeepSpeedVersion);
  });
  return {std::move(p).finish(), std::move(storages)};
}

Content model_states(const Manifest& model, const Layout& layout, const Settings& settings,
                     uint64_t rank) {
  // StorageSource 0 is the emptiness that stands for every parameter: at stage 3 they are
  // elsewhere.
  std::vector<StorageSource> storages{{StorageSource::From::kZeros, 0, settings.dtype, {}}};
  const PickledTensor nothing = PickledTensor::dense(settings.dtype, {0}, 0);
  const torch_write::Training training(model);
  PickleWriter p;
  const auto add = [&](StorageSource storage, std::vector<uint64_t> shape) {
    const DType dtype = storage.dtype;
    storages.push_back(std::move(storage));
    p.put(PickledTensor::dense(dtype, std::move(shape), storages.size() - 1));
  };
  const auto module = [&] {
    p.ordered_dict([&] {
      for (const auto& [name, i] : model.module) {
        const manifest::Tensor& t = model.tensors[i];
        p.put(name);
        if (t.role != manifest::Role::kBuffer) {
          p.put(nothing);
        } else {
          add(torch_write::of_tensor(t, i, t.dtype), t.shape);
        }
      }
    });
  };
  const auto fragments = [&] {
    p.ordered_dict([&] {
      for (const uint64_t i : layout.frozen) {
        const uint64_t n = elements_per_rank(model.tensors[i], settings.world_size);
        p.put(model.tensors[i].target());
        add({StorageSource::From::kTensors,
             manifest::dense_bytes(settings.dtype, n).value_or(0),
             settings.dtype,
             {piece(model, i, rank, settings.world_size, settings.dtype)},
             settings.dtype == DType::F16},
            {n});
      }
    });
  };
  p.dict([&] {
    p.entry("module", module);
    p.entry("buffer_names", [&] {
      p.list([&] {
        for (const uint64_t i : layout.buffers) p.put(model.tensors[i].target());
      });
    });
    p.entry("optimizer", None{});
    p.entry("param_shapes", [&] {
      p.list([&] {
        for (const SubGroup& sub : layout.sub_groups) put_shapes(p, model, sub.parameters);
      });
    });
    p.entry("frozen_param_shapes", [&] { put_shapes(p, model, layout.frozen); });
    if (rank == 0) {
      p.entry("shared_params", [&] { torch_write::put_shared_params(p, model); });
    } else {
      p.entry("shared_params", EmptyDict{});  // as DeepSpeed does
    }
    p.entry("frozen_param_fragments", fragments);
    p.entry("lr_scheduler", [&] { torch_write::put_scheduler_state(p, training); });
    p.entry("data_sampler", None{});
    p.entry("random_ltd", None{});
    torch_write::put_counters(p, training);
    p.entry("dp_world_size", settings.world_size);
    p.entry("mp_world_size", 1);
    torch_write::put_parallel_dimensions(p);
    p.entry("ds_config", EmptyDict{});
    p.entry("ds_version", torch_write::kDeepSpeedVersion);
    torch_write::put_client_state(p, training);
  });
  return {std::move(p).finish(), std::move(storages)};
}

std::string model_states_name(uint64_t rank) {
  return cat("zero_pp_rank_", rank, "_mp_rank_00_model_states.pt");
}

std::string optimizer_states_name(const Settings& settings, uint64_t rank) {
  return cat(settings.dtype == DType::BF16 ? "bf16_" : "", "zero_pp_rank_", rank,
             "_mp_rank_00_optim_states.pt");
}

}  // namespace crossdock::writer_zero3
