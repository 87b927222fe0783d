// SPDX-License-Identifier: Apache-2.0

// DeepSpeed's files as short recipes: the inputs of this folder's tests and the seeds of its
// fuzzer.
#pragma once

#include "plugins/deepspeed/recipes_for_test.h"

namespace crossdock::reader_zero::recipe {

using namespace deepspeed::recipe;

// ---- stage 3 on two ranks: a.weight [2, 3] and b [5], of which a rank holds three elements each
struct Stage3 {
  int rank = 0;
  std::string zero_stage = stage_enum(3), partition_count = number(2), global_steps = number(7),
              dp_world_size = number(2), more = {};  // keys and values of the model states
  float step = 4;
  std::string master = {}, exp_avg = {};  // other bytes
  std::string param_shapes = {}, states = {}, module = {};
  std::string group = {};  // keys and values of the optimizer's group
  std::string config = dict({});
  std::string optimizer_root = "archive", model_root = "archive";

  std::string flat(char a, char b) const {
    return rank == 0 ? elements(a, 0, 3) + elements(b, 0, 3)
                     : elements(a, 3, 6) + elements(b, 3, 5) + "----";
  }
  std::string optimizer_file(bool pickle_alone = false) const {
    File f(optimizer_root);
    const std::string fp32 = f.flat(master.empty() ? flat('a', 'b') : master);
    const std::string first = f.flat(exp_avg.empty() ? flat('c', 'd') : exp_avg);
    const std::string second = f.flat(flat('e', 'f'));
    const std::string state =
        states.empty() ? dict({number(0), dict({text("step"), f.scalar(step), text("exp_avg"),
                                                first, text("exp_avg_sq"), second})})
                       : states;
    const std::string keys = group.empty() ? text("lr") + real(0.5) + text("betas") +
                                                 tuple({real(0.9), real(0.25)}) + text("fused") +
                                                 "N" + text("decoupled_weight_decay") + "\x88"
                                           : group;
    const std::string all = "}(" + keys + text("params") + list({number(0)}) + "u";
    return f.made_of(
        dict({text("optimizer_state_dict"),
              dict({text("zero_stage"), zero_stage, text("loss_scaler"), scaler(),
                    text("partition_count"), partition_count, text("optimizer_state_dict"),
                    dict({text("state"), state, text("param_groups"), list({all})}),
                    text("fp32_flat_groups"), list({fp32})}),
              text("ds_config"), dict({}), text("ds_version"), text("0.19.8")}),
        pickle_alone);
  }
  std::string model_file(bool pickle_alone = false) const {
    File f(model_root);
    const std::string none = f.flat("");
    const std::string shapes =
        param_shapes.empty()
            ? list({ordered_dict({text("a.weight"), shape({2, 3}), text("b"), shape({5})})})
            : param_shapes;
    const std::string buffer = f.of_shape(elements('s', 0, 6), {3, 2}, {1, 3});
    const std::string all =
        module.empty() ? ordered_dict({text("a.weight"), none, text("seen"), buffer, text("b"),
                                       none, text("frozen"), none, text("tied"), none})
                       : module;
    const std::string fragment = f.flat(elements('z', 2 * rank, 2 * rank + 2));
    return f.made_of(dict({text("module"),
                           all,
                           text("buffer_names"),
                           list({text("seen")}),
                           text("param_shapes"),
                           shapes,
                           text("frozen_param_shapes"),
                           ordered_dict({text("frozen"), shape({3})}),
                           text("shared_params"),
                           rank == 0 ? dict({text("tied"), text("a.weight")}) : dict({}),
                           text("frozen_param_fragments"),
                           ordered_dict({text("frozen"), fragment}),
                           text("lr_scheduler"),
                           dict({text("last_batch_iteration"), number(6)}),
                           text("skipped_steps"),
                           number(3),
                           text("global_steps"),
                           global_steps,
                           text("global_samples"),
                           number(28),
                           text("dp_world_size"),
                           dp_world_size,
                           text("mp_world_size"),
                           number(1),
                           text("ds_config"),
                           config,
                           text("ds_version"),
                           text("0.19.8"),
                           text("epoch"),
                           real(1.5)}) +
                         (more.empty() ? "" : "(" + more + "u"),
                     pickle_alone);
  }
};

// ---- stages 1 and 2 on two ranks: the same parameters in a row of 11 elements, six on the first
struct Stage12 {
  int rank = 0, stage = 2;
  std::string zero_stage = stage_enum(2);  // empty: none, as BF16_Optimizer leaves it
  std::string partition_count = list({number(2)}), alignment = {}, master = {};
  bool is_elastic = false, pads_master = false, has_gap = false;
  std::string module = {}, frozen_shapes = "N", frozen_fragments = "N";
  std::string optimizer_root = "archive", model_root = "archive";

  std::string row(char a, char b, bool padded) const {
    const std::string gap = has_gap ? "----" : "";  // of an element on each side of the seam
    return rank == 0 ? elements(a, 0, 6) + gap : gap + elements(b, 0, 5) + (padded ? "----" : "");
  }
  std::string optimizer_file(bool pickle_alone = false) const {
    File f(optimizer_root);
    const std::string fp32 = f.flat(master.empty() ? row('a', 'b', pads_master) : master);
    const std::string state =
        dict({text("step"), number(4), text("exp_avg"), f.flat(row('c', 'd', !is_elastic)),
              text("exp_avg_sq"), f.flat(row('e', 'f', !is_elastic))});
    const std::string group = dict({text("lr"), real(0.5), text("params"), list({number(9)})});
    const std::string base =
        is_elastic
            ? list({state})
            : dict({text("state"), dict({number(9), state}), text("param_groups"), list({group})});
    return f.made_of(
        dict({text("optimizer_state_dict"),
              dict({text("base_optimizer_state"), base, text("single_partition_of_fp32_groups"),
                    list({fp32}), text("zero_stage"), zero_stage.empty() ? "N" : zero_stage,
                    text("group_paddings"), list({number(rank == 1 ? 1 : 0)}),
                    text("param_alignment_paddings"), alignment.empty() ? "N" : alignment,
                    text("partition_count"), partition_count, text("ds_version"), text("0.19.8")}),
              text("ds_config"),
              dict({text("optimizer"), dict({text("type"), text("AdamW"), text("params"),
                                             dict({text("torch_adam"), "\x88"})})})}),
        pickle_alone);
  }
  std::string model_file(bool pickle_alone = false) const {
    File f(model_root);
    const std::string a = f.of_shape(elements('A', 0, 6), {2, 3}, {3, 1}),
                      b = f.flat(elements('B', 0, 5)), seen = f.flat(elements('s', 0, 2)),
                      held = f.flat(elements('h', 0, 2));
    return f.made_of(
        dict({text("module"),
              module.empty() ? ordered_dict({text("a.weight"), a, text("seen"), seen, text("b"), b,
                                             text("tied"), a, text("held"), held})
                             : module,
              text("buffer_names"),
              list({text("seen")}),
              text("param_shapes"),
              list({ordered_dict({text("a.weight"), shape({2, 3}), text("b"), shape({5})})}),
              text("frozen_param_shapes"),
              frozen_shapes,
              text("frozen_param_fragments"),
              frozen_fragments,
              text("shared_params"),
              dict({text("tied"), text("a.weight")}),
              text("global_steps"),
              number(7),
              text("dp_world_size"),
              number(2),
              text("mp_world_size"),
              number(1),
              text("ds_version"),
              text("0.19.8")}),
        pickle_alone);
  }
};

inline std::string optimizer_name(int rank, const std::string& folder = "step7/") {
  return cat(folder, "bf16_zero_pp_rank_", rank, "_mp_rank_00_optim_states.pt");
}
inline std::string model_name(int rank, const std::string& folder = "step7/") {
  return cat(folder, "zero_pp_rank_", rank, "_mp_rank_00_model_states.pt");
}

}  // namespace crossdock::reader_zero::recipe
