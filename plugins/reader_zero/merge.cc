// SPDX-License-Identifier: Apache-2.0
#include "plugins/reader_zero/merge.h"

#include "plugins/common/quote.h"
#include "plugins/reader_zero/tensor_parallel.h"

#include <algorithm>
#include <map>
#include <memory>

namespace crossdock::reader_zero {

namespace {

using common::in_quotes;
using manifest::Role;
using manifest::Tensor;

// A tensor of the whole, by its name.
struct Entry {
  std::string parameter;     // whose shares it has: its own name, or that of what it belongs to
  std::string kind;          // of a moment
  std::vector<uint64_t> of;  // by part: the tensor there, or kNone
};
constexpr uint64_t kNone = UINT64_MAX;

// The strides and the first element of what a tensor's segments hold.
struct InShare {
  Shape strides;
  uint64_t begin = 0;
};
InShare in_share(const Tensor& t, const Shape& share) {
  InShare out;
  if (!t.strides.empty()) {
    for (const int64_t stride : t.strides) out.strides.push_back(static_cast<uint64_t>(stride));
    out.begin = t.storage_offset;
    return out;
  }
  out.strides.resize(share.size());
  uint64_t stride = 1;
  for (size_t d = share.size(); d-- > 0;) {
    out.strides[d] = stride;
    stride *= share[d];
  }
  return out;
}

class Merger {
 public:
  Merger(const SavedJob& job, std::vector<Part> parts) : job_(job), parts_(std::move(parts)) {}

  Result<Merged> run() {
    if (job_.tensor_ranks > 1 && !job_.info)
      return unsupported(
          cat("expected universal_checkpoint_info in mp_rank_00's model states, which tells how ",
              job_.tensor_ranks,
              " tensor-parallel ranks share each parameter, found none: the job must save it"));
    add_entries();
    for (const std::string* name : in_order()) {
      auto added = add_tensor(*name, entries_.at(*name));
      if (!added) return std::move(added).error();
    }
    XD_TRY(add_training());
    add_names();
    return std::move(out_);
  }

 private:
  const Tensor& tensor(size_t part, uint64_t i) const { return parts_[part].manifest.tensors[i]; }

  void add_entries() {
    for (size_t p = 0; p < parts_.size(); ++p) {
      const manifest::Manifest& m = parts_[p].manifest;
      std::vector<std::string> parameter, kind(m.tensors.size());
      for (const Tensor& t : m.tensors) parameter.push_back(t.name);
      for (const manifest::AliasGroup& group : m.alias_groups) {
        for (const uint64_t i : group.tensors) parameter[i] = m.tensors[group.tensors[0]].name;
      }
      for (const manifest::Moment& moment : m.training.moments) {
        parameter[moment.state] = parameter[moment.parameter];
        kind[moment.state] = moment.kind;
      }
      for (size_t i = 0; i < m.tensors.size(); ++i) {
        const auto [it, is_new] = entries_.try_emplace(m.tensors[i].name);
        if (is_new) {
          it->second = {parameter[i], kind[i], std::vector<uint64_t>(parts_.size(), kNone)};
          names_.push_back(&it->first);
        }
        it->second.of[p] = i;
      }
    }
  }

  // Parameters and buffers, then moments kind by kind.
  std::vector<const std::string*> in_order() const {
    std::map<std::string_view, size_t> kinds{{"", 0}};
    for (const std::string* name : names_) kinds.emplace(entries_.at(*name).kind, kinds.size());
    std::vector<const std::string*> out = names_;
    std::stable_sort(out.begin(), out.end(), [&](const std::string* a, const std::string* b) {
      return kinds.at(entries_.at(*a).kind) < kinds.at(entries_.at(*b).kind);
    });
    return out;
  }

  // Of each stage that has it; the first one's values count.
  Result<void> add_tensor(const std::string& name, const Entry& entry) {
    std::optional<size_t> first;  // stage
    for (size_t stage = 0; stage * job_.tensor_ranks < parts_.size(); ++stage) {
      if (!is_in(entry, stage)) continue;
      if (first && is_replicated(entry)) continue;
      auto one = of_stage(name, entry, stage);
      if (!one) return std::move(one).error();
      auto& [t, content] = *one;
      if (!first) {
        first = stage;
        index_.emplace(name, out_.manifest.tensors.size());
        out_.manifest.tensors.push_back(std::move(t));
        out_.contents.push_back(std::move(content));
        continue;
      }
      const Tensor& known = out_.manifest.tensors.back();
      if (known.shape != t.shape || known.dtype != t.dtype)
        return corrupt(cat("expected ", in_quotes(name),
                           " of the same shape and type in pipeline "
                           "stages ",
                           *first, " and ", stage, ", found others"));
      out_.contents.back().add_copy(content);
    }
    out_.manifest.tensors.back().extents = out_.contents.back().extents();
    return {};
  }

  bool is_in(const Entry& entry, size_t stage) const {
    const auto begin = entry.of.begin() + static_cast<ptrdiff_t>(stage * job_.tensor_ranks);
    return std::any_of(begin, begin + static_cast<ptrdiff_t>(job_.tensor_ranks),
                       [](uint64_t i) { return i != kNone; });
  }
  // Tied weights, of which DeepSpeed takes those of the first stage too.
  bool is_replicated(const Entry& entry) const {
    return job_.info &&
           std::any_of(job_.info->pipeline_replicated.begin(), job_.info->pipeline_replicated.end(),
                       [&](const Pattern& p) { return p.matches(entry.parameter); });
  }
  size_t n_stages(const Entry& entry) const {
    size_t n = 0;
    for (size_t stage = 0; stage * job_.tensor_ranks < parts_.size(); ++stage)
      n += is_in(entry, stage);
    return n;
  }

  Result<std::pair<Tensor, Content>> of_stage(const std::string& name, const Entry& entry,
                                              size_t stage) {
    std::vector<size_t> numbers;  // of its parts
    std::vector<Shape> shares;
    const Tensor* model = nullptr;  // one with elements, where there is one
    for (size_t t = 0; t < job_.tensor_ranks; ++t) {
      const size_t part = numbers.emplace_back(stage * job_.tensor_ranks + t);
      const Tensor* one = entry.of[part] == kNone ? nullptr : &tensor(part, entry.of[part]);
      shares.push_back(one ? one->shape : Shape{0});
      if (!one) continue;
      if (!model || (n_elems(*model) == 0 && n_elems(*one) > 0)) model = one;
      if (n_elems(*one) > 0 && one->dtype != model->dtype)
        return corrupt(cat("expected ", in_quotes(name), " of one type on all ranks, found ",
                           manifest::name(model->dtype), " and ", manifest::name(one->dtype),
                           " on ", part_name(part)));
    }
    const bool is_whole = model->role == Role::kBuffer || !job_.info;
    if (is_whole && shares.size() == 1 && n_stages(entry) == 1) {
      const size_t part = numbers[0];
      return std::pair(*model, Content(parts_[part].segments[entry.of[part]]));
    }
    XD_TRY_SET(const auto sharing, sharing_of_tensor(name, entry, is_whole, shares));
    Tensor out = *model;
    out.shape = sharing->shape;
    out.strides.clear();
    out.storage_offset = out.storage_elements = 0;
    XD_TRY_SET(Content content, content_of(name, entry, *sharing, numbers, out.dtype));
    return std::pair(std::move(out), std::move(content));
  }

  static uint64_t n_elems(const Tensor& t) { return *checked_product(t.shape); }

  // A parameter and its moments have the same.
  Result<std::shared_ptr<const Sharing>> sharing_of_tensor(const std::string& name,
                                                           const Entry& entry, bool is_whole,
                                                           const std::vector<Shape>& shares) {
    if (is_whole) {
      UniversalInfo info;
      XD_TRY_SET(Pattern any, Pattern::compile(""));
      info.replicated.push_back(std::move(any));
      XD_TRY_SET(Sharing made, sharing_of(info, name, shares, pairs_));
      return std::make_shared<const Sharing>(std::move(made));
    }
    auto& known = sharings_[entry.parameter];
    if (!known.second || known.first != shares) {
      XD_TRY_SET(Sharing made, sharing_of(*job_.info, entry.parameter, shares, pairs_));
      known = {shares, std::make_shared<const Sharing>(std::move(made))};
    }
    return known.second;
  }

  Result<Content> content_of(const std::string& name, const Entry& entry, const Sharing& sharing,
                             const std::vector<size_t>& numbers, manifest::DType dtype) const {
    const uint64_t elem_bytes = manifest::info(dtype).bits / 8;
    if (sharing.is_average && dtype != manifest::DType::F32)
      return unsupported(cat("expected F32 in ", in_quotes(name),
                             ", the mean of what tensor-parallel ranks have, found ",
                             manifest::name(dtype), ": leave --weights model out"));
    std::vector<common::Segments> segments;
    std::vector<std::string> names;
    for (const size_t part : numbers) {
      names.push_back(part_name(part));
      const bool has = entry.of[part] != kNone;
      segments.push_back(has ? parts_[part].segments[entry.of[part]]
                             : common::Segments(elem_bytes));
    }
    std::vector<common::Box> boxes, copies;
    std::map<std::pair<Shape, Shape>, uint64_t> known;  // boxes
    for (const Held& held : sharing.boxes) {
      const Tensor& t = tensor(numbers[held.rank], entry.of[numbers[held.rank]]);
      if (!t.strides.empty() && (t.shape != sharing.shares[held.rank] || sharing.is_average))
        return unsupported(cat("expected dense values of ", in_quotes(name), " on ",
                               names[held.rank], ", found strides"));
      const InShare layout = in_share(t, sharing.shares[held.rank]);
      uint64_t begin = layout.begin;
      for (size_t d = 0; d < layout.strides.size(); ++d)
        begin += held.in_share[d] * layout.strides[d];
      const bool is_new = known.emplace(std::pair(held.offsets, held.sizes), 0).second;
      (is_new ? boxes : copies)
          .push_back({held.offsets, held.sizes, static_cast<uint32_t>(held.rank),
                      begin * elem_bytes, layout.strides});
    }
    if (sharing.is_average) copies.clear();
    return Content(sharing.shape, elem_bytes, std::move(segments), std::move(names),
                   std::move(boxes), std::move(copies), sharing.is_average);
  }

  Result<void> add_training() {
    manifest::TrainingState& training = out_.manifest.training;
    training = parts_[0].manifest.training;
    training.moments.clear();
    for (auto& group : training.groups) group.tensors.clear();
    for (size_t p = 0; p < parts_.size(); ++p) {
      const manifest::TrainingState& of_part = parts_[p].manifest.training;
      for (size_t g = 0; g < training.groups.size(); ++g) {
        const manifest::ParameterGroup& group = of_part.groups[g];
        if (group.hyper_parameters != training.groups[g].hyper_parameters)
          return corrupt(cat(part_name(p), ": expected parameter group ", g,
                             " with the hyper-parameters that it has on mp_rank_00, found others"));
        for (const uint64_t i : group.tensors) {
          const uint64_t tensor = index_.at(this->tensor(p, i).name);
          if (grouped_.emplace(tensor, g).second) training.groups[g].tensors.push_back(tensor);
        }
      }
    }
    for (const Tensor& t : out_.manifest.tensors) {
      const Entry& entry = entries_.at(t.name);
      if (!entry.kind.empty())
        training.moments.push_back({entry.kind, index_.at(entry.parameter), index_.at(t.name)});
    }
    return {};
  }

  void add_names() {
    manifest::Manifest& m = out_.manifest;
    std::map<std::string_view, bool> known;
    // A part whose order is not known has no names.
    const bool knows_order = std::none_of(parts_.begin(), parts_.end(), [](const Part& part) {
      return part.manifest.module.empty() && !part.manifest.tensors.empty();
    });
    for (const bool parameters : {true, false}) {
      if (!knows_order) break;
      const size_t begin = m.module.size();
      for (size_t p = 0; p < parts_.size(); ++p) {
        for (const manifest::ModuleName& one : parts_[p].manifest.module) {
          const Tensor& t = tensor(p, one.tensor);
          if ((t.role == Role::kParameter) == parameters && known.emplace(one.name, true).second)
            m.module.push_back({one.name, index_.at(t.name)});
        }
      }
      // A PipelineModule has those that stages share in front of its layers.
      if (parts_.size() > job_.tensor_ranks)
        std::stable_partition(m.module.begin() + static_cast<ptrdiff_t>(begin), m.module.end(),
                              [](const auto& n) { return n.name.starts_with("tied_modules."); });
    }
    for (const Part& part : parts_) {
      for (const manifest::AliasGroup& group : part.manifest.alias_groups) {
        manifest::AliasGroup merged;
        for (const uint64_t i : group.tensors)
          merged.tensors.push_back(index_.at(part.manifest.tensors[i].name));
        if (std::find(m.alias_groups.begin(), m.alias_groups.end(), merged) == m.alias_groups.end())
          m.alias_groups.push_back(std::move(merged));
      }
    }
  }

  const SavedJob& job_;
  const std::vector<Part> parts_;
  std::map<std::string, Entry> entries_;
  std::vector<const std::string*> names_;  // of entries, as they appear
  std::map<std::string, uint64_t> index_;  // of the merged tensors, by name
  std::map<uint64_t, size_t> grouped_;     // the group of a tensor
  std::map<std::string, std::pair<std::vector<Shape>, std::shared_ptr<const Sharing>>> sharings_;
  uint64_t pairs_ = common::kMaxPairs;
  Merged out_;
};

}  // namespace

Result<Merged> merge(const SavedJob& job, std::vector<Part> parts) {
  if (parts.size() > 1) return Merger(job, std::move(parts)).run();
  Merged out{std::move(parts[0].manifest), {}, {}};
  for (common::Segments& segments : parts[0].segments)
    out.contents.emplace_back(std::move(segments));
  return out;
}

}  // namespace crossdock::reader_zero
