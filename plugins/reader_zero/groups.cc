// SPDX-License-Identifier: Apache-2.0
#include "plugins/reader_zero/groups.h"

#include "plugins/common/hf_folder.h"
#include "plugins/common/quote.h"

#include <algorithm>

namespace crossdock::reader_zero {

namespace {

using common::Segments;

template <class FlatOf>
Segments segments_of(const Pieces& pieces, uint64_t elem_bytes, FlatOf&& flat_of) {
  Segments out(elem_bytes);
  for (const Piece& piece : pieces) {
    const Stored& flat = flat_of(piece.rank);
    out.add(flat.file, flat.offset + piece.offset * elem_bytes, piece.count);
  }
  return out;
}

const Stored* find_state(const FlatGroup& group, const std::string& key) {
  const auto it = std::find_if(group.states.begin(), group.states.end(),
                               [&](const FlatGroup::State& s) { return s.key == key; });
  return it == group.states.end() ? nullptr : &it->value;
}

}  // namespace

Result<Groups> Groups::make(const States& states, const std::vector<manifest::File>& files) {
  Groups out(states, files);
  for (size_t g = 0; g < states.model.groups.size(); ++g) {
    XD_TRY_SET(out.groups_.emplace_back(), out.cut(g));
  }
  return out;
}

Result<Groups::Group> Groups::cut(size_t g) const {
  const States& s = *states_;
  std::vector<uint64_t> sizes, held;
  for (const NamedShape& p : s.model.groups[g]) sizes.push_back(p.n_elems);
  for (const OptimizerStates& o : s.optimizer) held.push_back(o.flat_groups[g].master.n_elems());
  Group out;
  if (s.stage() == 3) {
    XD_TRY(sum_of(sizes));
    const uint64_t expected = elements_of_rank(sizes, s.n_ranks());
    for (size_t rank = 0; rank < held.size(); ++rank) {
      if (held[rank] != expected)
        return common::in_file(
            file_of(s.optimizer[rank].flat_groups[g].master),
            corrupt(cat("expected ", expected, " elements in flat group ", g,
                        ", this rank's part of the parameters of param_shapes, found ", held[rank],
                        ": the files are of different saves, or of a job that cuts parameters "
                        "over fewer ranks (MiCS)")));
    }
    out.pieces = cut_each(sizes, s.n_ranks());
  } else {
    const auto& gaps = s.optimizer[0].alignment_paddings;
    if (!gaps.empty() && gaps.size() != s.model.groups.size())
      return corrupt(cat("param_alignment_paddings: expected those of ", s.model.groups.size(),
                         " groups, found ", gaps.size()));
    auto pieces =
        cut_row(sizes, gaps.empty() ? std::span<const uint64_t>() : std::span(gaps[g]), held);
    if (!pieces)
      return std::move(pieces).error().in(
          cat("flat group ", g, " of the optimizer states, and param_shapes"));
    out.pieces = std::move(*pieces);
  }
  out.is_held.resize(s.n_ranks());
  for (const Pieces& pieces : out.pieces) {
    for (const Piece& piece : pieces) out.is_held[piece.rank] = true;
  }
  return out;
}

Segments Groups::master(size_t g, size_t i) const {
  const auto flat_of = [&](uint64_t rank) -> const Stored& {
    return states_->optimizer[rank].flat_groups[g].master;
  };
  const uint64_t elem_bytes = states_->optimizer[0].flat_groups[g].master.elem_bytes();
  return segments_of(groups_[g].pieces[i], elem_bytes, flat_of);
}

// Of stages 1 and 2 the masters are without the padding at a part's end; moments may have it.
bool Groups::fits(size_t g, size_t rank, const Stored& state) const {
  const OptimizerStates& o = states_->optimizer[rank];
  const uint64_t n = state.n_elems(), held = o.flat_groups[g].master.n_elems();
  return n == held || (g < o.paddings.size() && n > held && n - held == o.paddings[g]);
}

Result<std::vector<Groups::Moment>> Groups::moments(size_t g,
                                                    std::vector<std::string>& left_out) const {
  const Group& group = groups_[g];
  std::vector<Moment> out;
  for (size_t rank = 0; rank < group.is_held.size(); ++rank) {
    if (!group.is_held[rank]) continue;
    for (const FlatGroup::State& state : states_->optimizer[rank].flat_groups[g].states) {
      const auto is_known = [&](const Moment& m) { return m.key == state.key; };
      if (std::none_of(out.begin(), out.end(), is_known))
        out.push_back({state.key, {}, state.value.dtype});
    }
  }
  std::vector<Moment> placed;
  for (Moment& moment : out) {
    XD_TRY_SET(const bool fits, place(g, moment));
    if (fits) {
      placed.push_back(std::move(moment));
    } else {
      left_out.push_back(cat(common::in_quotes(moment.key), " of flat group ", g));
    }
  }
  return placed;
}

// Finds the state in each rank; false where it fits in none.
Result<bool> Groups::place(size_t g, Moment& moment) const {
  const std::vector<bool>& is_held = groups_[g].is_held;
  std::optional<size_t> fitting, other;  // ranks
  moment.of_rank.resize(is_held.size());
  for (size_t rank = 0; rank < is_held.size(); ++rank) {
    if (!is_held[rank]) continue;
    const Stored* state = find_state(states_->optimizer[rank].flat_groups[g], moment.key);
    const bool fits = state && state->dtype == moment.dtype && this->fits(g, rank, *state);
    if (fits) moment.of_rank[rank] = state;
    (fits ? fitting : other) = rank;
  }
  if (!fitting || !other) return fitting.has_value();
  return common::in_file(file_of(states_->optimizer[*other].flat_groups[g].master),
                         corrupt(cat("expected ", common::in_quotes(moment.key), " of flat group ",
                                     g, " with a value for each element, as rank ", *fitting,
                                     " has it, found none: the files are of different saves")));
}

Segments Groups::moment(const Moment& moment, size_t g, size_t i) const {
  return segments_of(groups_[g].pieces[i], manifest::info(moment.dtype).bits / 8,
                     [&](uint64_t rank) -> const Stored& { return *moment.of_rank[rank]; });
}

}  // namespace crossdock::reader_zero
