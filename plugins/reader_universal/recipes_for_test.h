// SPDX-License-Identifier: Apache-2.0

// Universal checkpoints as short recipes: the inputs of this folder's tests and the seeds of its
// fuzzer.
#pragma once

#include "plugins/deepspeed/recipes_for_test.h"

#include <map>
#include <string>

namespace crossdock::reader_universal::recipe {

using namespace deepspeed::recipe;

using Files = std::map<std::string, std::string>;  // by name, in the checkpoint's folder

// A file of zero/NAME, or its pickle alone. `letter`: of the elements' names.
inline std::string bare(const std::string& bytes, bool pickle_alone = false) {
  File f;
  return f.made_of(f.flat(bytes), pickle_alone);
}
// {param: tensor, cat_dim: 0} and `more` keys and values. An empty `strides` is dense.
inline std::string saved(const std::string& bytes, std::initializer_list<int64_t> shape,
                         std::initializer_list<int64_t> strides, const std::string& more = {},
                         bool pickle_alone = false) {
  File f;
  const std::string value =
      dict({text("param"), f.of_shape(bytes, shape, strides), text("cat_dim"), number(0)});
  return f.made_of(value + (more.empty() ? "" : "(" + more + "u"), pickle_alone);
}
inline std::string step_file(float step, bool pickle_alone = false) {
  File f;
  return f.made_of(f.scalar(step), pickle_alone);
}

// a.weight [2, 3] and b [5] train, "tied" is another name of a.weight, "held" is frozen, "seen" a
// buffer. Of two ranks that did four steps.
struct Universal {
  int stage = 2;
  std::string zero_stage = stage_enum(2), groups = {}, inner = {}, more_optimizer = {};
  std::string param_shapes = {}, module = {}, info = {}, dp_world_size = number(2), more = {};
  bool pickles_alone = false;
  std::string model_root = "archive";

  std::string optimizer_file() const {
    File f;
    const std::string group = dict({text("lr"), real(0.5), text("decoupled_weight_decay"), "\x88",
                                    text("params"), list({number(0)})});
    std::string value = dict({text("zero_stage"), zero_stage.empty() ? "N" : zero_stage,
                              text("loss_scaler"), scaler(), text("ds_version"), text("0.19.8"),
                              text("param_groups"), groups.empty() ? list({group}) : groups});
    if (stage == 3)
      value += "(" + text("optimizer_state_dict") +
               (inner.empty()
                    ? dict({text("state"), dict({number(0), dict({text("step"), f.scalar(4)})})})
                    : inner) +
               "u";
    return f.made_of(value + (more_optimizer.empty() ? "" : "(" + more_optimizer + "u"),
                     pickles_alone);
  }

  std::string model_file(int rank = 0) const {
    File f(model_root);
    const bool is_stage3 = stage == 3;
    const auto copy = [&](char letter, int n, std::initializer_list<int64_t> shape,
                          std::initializer_list<int64_t> strides) {
      return is_stage3 ? f.flat("") : f.of_shape(elements(letter, 0, n), shape, strides);
    };
    const std::string a = copy('A', 6, {2, 3}, {3, 1}), b = copy('B', 5, {5}, {1}),
                      seen = f.flat(elements('s', 0, 2)),
                      held = f.flat(is_stage3 ? "" : elements('h', 0, 3));
    const std::string whole = ordered_dict({text("a.weight"), a, text("seen"), seen, text("b"), b,
                                            text("held"), held, text("tied"), a});
    const std::string fragment =
        is_stage3 ? f.flat(elements('h', 2 * rank, 2 * rank + 2)) : held;  // the second is padded
    const std::string shapes =
        list({ordered_dict({text("a.weight"), shape({2, 3}), text("b"), shape({5})})});
    return f.made_of(
        dict({text("module"),
              module.empty() ? whole : module,
              text("buffer_names"),
              list({text("seen")}),
              text("param_shapes"),
              param_shapes.empty() ? shapes : param_shapes,
              text("frozen_param_shapes"),
              ordered_dict({text("held"), shape({3})}),
              text("frozen_param_fragments"),
              ordered_dict({text("held"), fragment}),
              text("shared_params"),
              rank == 0 ? dict({text("tied"), text("a.weight")}) : dict({}),
              text("lr_scheduler"),
              dict({text("last_batch_iteration"), number(6)}),
              text("skipped_steps"),
              number(1),
              text("global_steps"),
              number(7),
              text("global_samples"),
              number(28),
              text("dp_world_size"),
              dp_world_size,
              text("mp_world_size"),
              number(1),
              text("universal_checkpoint_info"),
              info.empty() ? dict({text("universal_checkpoint_version"), real(0.25)}) : info,
              text("ds_version"),
              text("0.19.8"),
              text("epoch"),
              real(1.5)}) +
            (more.empty() ? "" : "(" + more + "u"),
        pickles_alone);
  }

  std::string state_file(const std::string& bytes, bool is_matrix) const {
    if (stage == 3) return bare(bytes, pickles_alone);
    return is_matrix ? saved(bytes, {2, 3}, {3, 1}, "", pickles_alone)
                     : saved(bytes, {5}, {1}, "", pickles_alone);
  }

  Files files() const {
    Files out{{"zero/optimizer_state.pt", optimizer_file()},
              {"zero/a.weight/fp32.pt", state_file(elements('a', 0, 6), true)},
              {"zero/a.weight/exp_avg.pt", state_file(elements('c', 0, 6), true)},
              {"zero/a.weight/exp_avg_sq.pt", state_file(elements('e', 0, 6), true)},
              {"zero/b/fp32.pt", state_file(elements('b', 0, 5), false)},
              {"zero/b/exp_avg.pt", state_file(elements('d', 0, 5), false)},
              {"zero/b/exp_avg_sq.pt", state_file(elements('f', 0, 5), false)}};
    if (stage == 3) {
      out["zero_pp_rank_0_mp_rank_00_model_states.pt"] = model_file(0);
      out["zero_pp_rank_1_mp_rank_00_model_states.pt"] = model_file(1);
      return out;
    }
    out["mp_rank_00_model_states.pt"] = model_file();
    out["zero/a.weight/step.pt"] = out["zero/b/step.pt"] = step_file(4, pickles_alone);
    // As 0.19.8 does it for all names of the module that have no folder yet.
    out["zero/seen/fp32.pt"] = out["zero/tied/fp32.pt"] = out["zero/held/fp32.pt"] =
        bare(elements('?', 0, 2), pickles_alone);
    return out;
  }
};

inline Universal stage3() {
  Universal out;
  out.stage = 3;
  out.zero_stage = stage_enum(3);
  return out;
}

}  // namespace crossdock::reader_universal::recipe
