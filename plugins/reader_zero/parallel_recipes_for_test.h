// SPDX-License-Identifier: Apache-2.0

// A checkpoint of two model-parallel ranks, of one data-parallel rank each: the inputs of tests,
// and seeds of the fuzzer.
#pragma once

#include "plugins/reader_zero/recipes_for_test.h"

namespace crossdock::reader_zero::recipe {

// Of ranks that share each layer: column [1, 2] and row [2, 1] of each, same [2] of both, and the
// buffer seen [2]. Of a pipeline each has a layer of its own, and tied_modules.t.w [2].
struct PartOf2 {
  int rank = 0;
  bool is_pipeline = false;
  int64_t global_steps = 7;
  std::string info = "N", same = elements('s', 0, 2), shapes = {}, dimensions = {};

  char letter() const { return rank == 0 ? 'a' : 'b'; }
  std::string layer() const { return rank == 0 ? "0." : "2."; }

  std::string optimizer_file(bool pickle_alone = false) const {
    File f;
    const auto row = [&](char kind) {
      const char own = static_cast<char>(letter() + kind);
      return kind == 0 ? elements(own, 0, 4) + same : elements(own, 0, 4) + elements('m', 0, 2);
    };
    const std::string state = dict({text("step"), number(4), text("exp_avg"), f.flat(row(2))});
    const std::string group = dict({text("lr"), real(0.5), text("params"), list({number(0)})});
    return f.made_of(dict({text("optimizer_state_dict"),
                           dict({text("base_optimizer_state"),
                                 dict({text("state"), dict({number(0), state}),
                                       text("param_groups"), list({group})}),
                                 text("single_partition_of_fp32_groups"), list({f.flat(row(0))}),
                                 text("zero_stage"), stage_enum(2), text("partition_count"),
                                 list({number(1)})})}),
                     pickle_alone);
  }

  std::string model_file(bool pickle_alone = false) const {
    File f;
    const std::string stage_shapes =
        ordered_dict({text(layer() + "w"), shape({4}), text("tied_modules.t.w"), shape({2})});
    const std::string share_shapes = ordered_dict(
        {text("column"), shape({1, 2}), text("row"), shape({2, 1}), text("same"), shape({2})});
    const std::string all = shapes.empty() ? (is_pipeline ? stage_shapes : share_shapes) : shapes;
    const std::string own = cat(static_cast<char>('A' + rank));
    const std::string module = ordered_dict(
        {text("column"), f.of_shape(elements(own[0], 0, 2), {1, 2}, {2, 1}), text("row"),
         f.of_shape(elements(own[0], 2, 4), {2, 1}, {1, 1}), text("same"),
         f.flat(elements('S', 0, 2)), text("seen"), f.of_shape(elements('n', 0, 2), {2}, {1})});
    const std::string degrees =
        is_pipeline ? dict({text("pp_degree"), number(2), text("tp_degree"), number(1)})
                    : dict({text("pp_degree"), number(1), text("tp_degree"), number(2)});
    return f.made_of(
        dict({text("module"), is_pipeline ? "N" : module, text("buffer_names"),
              list({text(is_pipeline ? layer() + "seen" : "seen")}), text("param_shapes"),
              list({all}), text("global_steps"), number(global_steps), text("dp_world_size"),
              number(1), text("mp_world_size"), number(2), text("checkpoint_parallel_dimensions"),
              dimensions.empty() ? degrees : dimensions, text("universal_checkpoint_info"), info}),
        pickle_alone);
  }

  // Of a pipeline.
  std::string layer_file(bool pickle_alone = false) const {
    File f;
    const std::string own = cat(static_cast<char>('A' + rank));
    return f.made_of(ordered_dict({text("w"), f.flat(elements(own[0], 0, 4)), text("seen"),
                                   f.flat(elements('n', 2 * rank, 2 * rank + 2))}),
                     pickle_alone);
  }
  // The layer that both stages have.
  static std::string tied_file(bool pickle_alone = false) {
    File f;
    return f.made_of(ordered_dict({text("w"), f.flat(elements('S', 0, 2))}), pickle_alone);
  }
};

// {KEY: [PATTERN]} for each, as ds_to_universal has them.
inline std::string info_of(std::initializer_list<std::pair<std::string, std::string>> patterns) {
  std::string entries;
  for (const auto& [key, pattern] : patterns) entries += text(key) + list({text(pattern)});
  return "}(" + entries + "u";
}
inline std::string plain_info() {
  return info_of({{"tp_replicated_parameter_patterns", "^same$"},
                  {"parameter_with_row_parallelism_patterns", "ro."}});
}

}  // namespace crossdock::reader_zero::recipe
