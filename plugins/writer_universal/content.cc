// SPDX-License-Identifier: Apache-2.0

// The dicts hold what DeepSpeed 0.19.8's own saves do, as far as a run that has not begun has it.
// The files and keys that loading needs are listed in FORMAT.md; the others are there for people
// and tools that read checkpoints.
#include "plugins/writer_universal/content.h"

#include <algorithm>

#include "plugins/torch/write/deepspeed_states.h"
#include "plugins/torch/write/pickle_writer.h"

namespace crossdock::writer_universal {

using manifest::DType;
using torch_write::element_count;
using torch_write::EmptyDict;
using torch_write::EmptyList;
using torch_write::None;
using torch_write::of_tensor;
using torch_write::PickledTensor;
using torch_write::PickleWriter;
using torch_write::StorageSource;
using torch_write::zeros;

namespace {

constexpr double kUniversalVersion = 0.4;
// Stages 1 and 2 pair the job's optimizer groups with these and leave the rest of the job's
// unloaded, without a word. Of a run that has not begun each is empty, for whatever is in it (lr,
// weight_decay) would replace the job's.
constexpr size_t kParamGroups = 64;

// Stages 1 and 2 cut what they load along its first dimension (Tensor.chunk), which a scalar lacks.
// Nobody minds that it has one: stages 1 and 2 compare only the number of elements, stage 3
// nothing.
std::vector<uint64_t> stored_shape(const manifest::Tensor& tensor) {
  return tensor.shape.empty() ? std::vector<uint64_t>{1} : tensor.shape;
}

std::string param_pickle(const PickledTensor& tensor) {
  PickleWriter p;
  p.dict([&] {
    p.entry("param", tensor);
    p.entry("cat_dim", 0);
  });
  return std::move(p).finish();
}

PickledTensor step_of_storage() { return PickledTensor::dense(DType::F32, {}, 0); }
torch_write::StorageSource steps(const torch_write::Training& training) {
  return torch_write::number(static_cast<float>(training.step()));
}

}  // namespace

Content weights(const manifest::Tensor& tensor, uint64_t index, bool keep_dtype) {
  const DType dtype = keep_dtype ? tensor.dtype : DType::F32;
  return {param_pickle(PickledTensor::dense(dtype, stored_shape(tensor), 0)),
          {of_tensor(tensor, index, dtype)}};
}

Content moment(const manifest::Tensor& tensor, Moments how) {
  if (how == Moments::kZeroStride) {
    return {param_pickle(PickledTensor::repeated(DType::F32, stored_shape(tensor), 0)), {zeros(1)}};
  }
  const auto from =
      how == Moments::kDense ? StorageSource::From::kWrittenZeros : StorageSource::From::kZeros;
  return {param_pickle(PickledTensor::dense(DType::F32, stored_shape(tensor), 0)),
          {zeros(element_count(tensor), from)}};
}

Content kept_moment(const manifest::Tensor& state, uint64_t index) {
  return {param_pickle(PickledTensor::dense(DType::F32, stored_shape(state), 0)),
          {of_tensor(state, index, DType::F32)}};
}

Content step(const torch_write::Training& training) {
  PickleWriter p;
  p.put(step_of_storage());
  return {std::move(p).finish(), {steps(training)}};
}

// Of a run in fp16, whose scale every stage takes from here; else the job's own stays.
void put_loss_scaler(PickleWriter& p, const torch_write::Training& training) {
  if (!torch_write::loss_scaler_value(training, "cur_scale")) return;
  p.put("loss_scaler");
  p.object(torch_write::kScalerModule, "DynamicLossScaler", [&] {
    for (const char* name :
         {"cur_scale", "dynamic", "cur_iter", "last_overflow_iter", "scale_factor", "scale_window",
          "min_scale", "delayed_shift", "cur_hysteresis", "consecutive_hysteresis",
          "raise_error_at_min_scale"}) {
      if (const manifest::Value* value = torch_write::loss_scaler_value(training, name))
        p.entry(name, [&] { torch_write::put_value(p, *value); });
    }
    p.put("dtype");
    p.global("torch", "float16");
  });
  p.entry("dynamic_loss_scale", true);
}

Content optimizer_state(const manifest::Manifest& model, const torch_write::Training& training) {
  PickleWriter p;
  const auto put_group = [&](size_t i) {
    p.dict([&] {
      if (i < training.groups().size() && training.has_begun())
        torch_write::put_hyper_parameters(p, training.groups()[i]);
      p.entry("params", EmptyList{});
    });
  };
  // Which group has which parameters, and the module's order: DeepSpeed leaves both to the job.
  const auto put_names = [&](const manifest::ParameterGroup& group) {
    p.list([&] {
      for (const uint64_t i : group.tensors) {
        if (model.tensors[i].excluded.empty()) p.put(model.tensors[i].target());
      }
    });
  };
  p.dict([&] {
    p.entry("ds_version", torch_write::kDeepSpeedVersion);
    p.entry("zero_stage", 3);
    p.entry("partition_count", 1);
    put_loss_scaler(p, training);
    p.entry("param_groups", [&] {  // stages 1 and 2
      p.list([&] {
        for (size_t i = 0; i < kParamGroups; ++i) put_group(i);
      });
    });
    if (training.has_begun() && !training.groups().empty()) {
      p.entry("param_names", [&] {
        p.list([&] {
          for (const manifest::ParameterGroup& group : training.groups()) put_names(group);
        });
      });
    }
    if (!model.module.empty()) {
      p.entry("module_names", [&] {
        p.list([&] {
          for (const auto& [name, tensor] : model.module) p.put(name);
        });
      });
    }
    p.entry("optimizer_state_dict", [&] {  // stage 3
      p.dict([&] {
        p.entry("state", [&] {
          p.dict([&] { p.entry(0, [&] { p.dict([&] { p.entry("step", step_of_storage()); }); }); });
        });
        p.entry("param_groups", [&] { p.list([&] { put_group(0); }); });
      });
    });
  });
  return {std::move(p).finish(), {steps(training)}};
}

Content model_states(const manifest::Manifest& model, const Parts& parts,
                     const torch_write::Training& training) {
  PickleWriter p;
  std::vector<StorageSource> storages;
  const auto buffers = [&] {
    p.ordered_dict([&] {
      for (const uint64_t i : parts.buffers) {
        const manifest::Tensor& tensor = model.tensors[i];
        p.entry(tensor.target(), PickledTensor::dense(tensor.dtype, tensor.shape, storages.size()));
        storages.push_back(of_tensor(tensor, i, tensor.dtype));
      }
    });
  };
  const auto buffer_names = [&] {
    p.list([&] {
      for (const uint64_t i : parts.buffers) p.put(model.tensors[i].target());
    });
  };
  const auto shapes = [&] {
    p.list([&] {
      p.ordered_dict([&] {
        for (const uint64_t i : parts.parameters) {
          p.put(model.tensors[i].target());
          p.torch_size(model.tensors[i].shape);
        }
      });
    });
  };
  p.dict([&] {
    p.entry("dp_world_size", 1);
    p.entry("mp_world_size", 1);  // the number of mp_rank files
    torch_write::put_counters(p, training);
    p.entry("lr_scheduler", [&] { torch_write::put_scheduler_state(p, training); });
    p.entry("module", buffers);
    p.entry("buffer_names", buffer_names);
    p.entry("param_shapes", shapes);
    p.entry("frozen_param_shapes", None{});
    p.entry("frozen_param_fragments", None{});
    p.entry("shared_params", [&] { torch_write::put_shared_params(p, model); });
    p.entry("optimizer", None{});
    p.entry("data_sampler", None{});
    p.entry("random_ltd", None{});
    p.entry("ds_config", EmptyDict{});
    p.entry("ds_version", torch_write::kDeepSpeedVersion);
    torch_write::put_parallel_dimensions(p);
    p.entry("universal_checkpoint_info",
            [&] { p.dict([&] { p.entry("universal_checkpoint_version", kUniversalVersion); }); });
    torch_write::put_client_state(p, training);
  });
  return {std::move(p).finish(), std::move(storages)};
}

Content scheduler(const torch_write::Training& training) {
  PickleWriter p;
  torch_write::put_scheduler_state(p, training);
  return {std::move(p).finish(), {}};
}

// The fields of transformers.TrainerState (5.23) whose defaults would not do, and those that a
// resumed job obeys instead of its TrainingArguments. train_batch_size must be a number; the first
// save of the job's own looks up the entries of stateful_callbacks and fails without them (a list
// is appended to, an object replaced).
std::string trainer_state_json(const torch_write::Training& training) {
  return cat(R"({
  "epoch": 0,
  "eval_steps": 500,
  "global_step": )",
             training.step(), R"(,
  "log_history": [],
  "logging_steps": 500,
  "max_steps": 0,
  "num_train_epochs": 0,
  "save_steps": 500,
  "stateful_callbacks": {
    "EarlyStoppingCallback": [],
    "TrainerControl": {
      "args": {
        "should_epoch_stop": false,
        "should_evaluate": false,
        "should_log": false,
        "should_save": false,
        "should_training_stop": false
      },
      "attributes": {}
    }
  },
  "total_flos": 0,
  "train_batch_size": 8
}
)");
}

}  // namespace crossdock::writer_universal
