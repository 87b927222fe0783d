// SPDX-License-Identifier: Apache-2.0
#include "core/model/check.h"

#include "core/base/text.h"

#include <algorithm>
#include <unordered_set>

namespace crossdock::model {

using manifest::Manifest;
using manifest::Tensor;

namespace {

std::string quoted(std::string_view name) {
  return '"' + base::printable(name.substr(0, 200)) + '"';
}

Result<void> check_text(const std::string& text, std::string_view what) {
  if (!base::is_utf8(text))
    return corrupt(cat("expected UTF-8 in ", what, ", found ", quoted(text)));
  return {};
}

// Recursion is bounded here as in the decoder, so that nesting cannot exhaust the stack.
Result<void> check_value(const manifest::Value& value, int depth) {
  if (depth > manifest::kMaxDepth) return corrupt("metadata nested too deep");
  if (const auto* text = value.get<std::string>()) return check_text(*text, "metadata");
  if (const auto* list = value.get<manifest::ValueList>()) {
    for (const auto& v : list->values) XD_TRY(check_value(v, depth + 1));
  }
  if (const auto* map = value.get<manifest::ValueMap>()) {
    for (const auto& entry : map->entries) {
      XD_TRY(check_text(entry.key, "a metadata key"));
      XD_TRY(check_value(entry.value, depth + 1));
    }
  }
  return {};
}

// No value of a tensor with strides is outside of its storage, and in plain encoding that is inside
// the extents.
Result<void> check_strides(const Tensor& t, uint64_t extent_bytes) {
  if (t.strides.size() != t.shape.size()) {
    return corrupt(cat("expected one stride for each of ", t.shape.size(), " dimensions, found ",
                       t.strides.size()));
  }
  if (manifest::info(t.dtype).bits % 8 != 0)
    return corrupt(
        cat("expected strides of elements of whole bytes, found ", manifest::name(t.dtype)));
  const auto storage_bytes = manifest::dense_bytes(t.dtype, t.storage_elements);
  if (t.storage_elements > kMaxElements || !storage_bytes ||
      (t.encoding.empty() && *storage_bytes > extent_bytes))
    return corrupt(cat("expected a storage inside its extents of ", extent_bytes, " bytes, found ",
                       t.storage_elements, " elements"));
  for (const int64_t stride : t.strides) {
    if (stride < 0) return corrupt(cat("expected strides of 0 or more, found ", stride));
  }
  if (*checked_product(t.shape) == 0) return {};
  uint64_t last = t.storage_offset;  // the farthest element
  for (size_t i = 0; i < t.shape.size(); ++i) {
    const auto reach = checked_mul(t.shape[i] - 1, static_cast<uint64_t>(t.strides[i]));
    const auto sum = reach ? checked_add(last, *reach) : std::nullopt;
    if (!sum) return corrupt("expected strides inside the storage, found ones that overflow");
    last = *sum;
  }
  if (last >= t.storage_elements)
    return corrupt(cat("expected a view inside its storage of ", t.storage_elements,
                       " elements, found element ", last));
  return {};
}

Result<void> check_tensor(const Tensor& t, const std::vector<manifest::File>& files) {
  if (t.name.size() > kMaxNameBytes)
    return corrupt(
        cat("expected a name of at most ", kMaxNameBytes, " bytes, found ", t.name.size()));
  XD_TRY(check_text(t.name, "a tensor's name"));
  XD_TRY(check_text(t.target_name, "a tensor's name"));
  if (t.name.find('\0') != t.name.npos || t.target_name.find('\0') != t.target_name.npos)
    return corrupt("expected a name without NUL, which no program in C could tell, found one");
  if (t.dtype == manifest::DType::UNSPECIFIED || manifest::info(t.dtype).bits == 0) {
    return corrupt(
        cat("expected a known element type, found number ", static_cast<uint32_t>(t.dtype)));
  }
  if (t.shape.size() > kMaxRank)
    return corrupt(cat("expected at most ", kMaxRank, " dimensions, found ", t.shape.size()));
  const auto n_elems = checked_product(t.shape);
  const auto n_bytes = n_elems ? manifest::dense_bytes(t.dtype, *n_elems) : std::nullopt;
  if (!n_bytes)
    return corrupt("expected a size below 2^64 bytes in whole bytes, found a shape that overflows");
  // Every product and sum is checked: the numbers come from a file.
  uint64_t extent_bytes = 0;
  for (const manifest::Extent& extent : t.extents) {
    if (extent.file >= files.size())
      return corrupt(cat("expected one of ", files.size(), " files, found number ", extent.file));
    const auto end = checked_add(extent.offset, extent.length);
    const auto sum = checked_add(extent_bytes, extent.length);
    if (!end || !sum || *end > files[extent.file].size) {
      return corrupt(cat("expected bytes inside ", files[extent.file].name, " of ",
                         files[extent.file].size, " bytes, found ", extent.length, " at ",
                         extent.offset));
    }
    extent_bytes = *sum;
  }
  XD_TRY(check_text(t.encoding, "an encoding"));
  XD_TRY(check_text(t.expression, "an expression"));
  XD_TRY(check_text(t.excluded, "a reason to exclude it"));
  if (!t.strides.empty()) return check_strides(t, extent_bytes);
  if (t.storage_offset != 0 || t.storage_elements != 0)
    return corrupt("expected a storage's offset and elements with strides only, found them alone");
  // What is made of others may repeat values of theirs.
  if (t.encoding.empty() && t.expression.empty() && *n_bytes > extent_bytes)
    return corrupt(cat("expected ", *n_bytes, " bytes of values, found ", extent_bytes));
  return {};
}

// All text but that of tensors, the module and the training state.
Result<void> check_texts(const Manifest& m) {
  for (const auto& file : m.source.files) {
    XD_TRY(check_text(file.name, "a file's name"));
    XD_TRY(check_text(file.digest, "a file's digest"));
  }
  for (const auto& entry : m.source.metadata) {
    XD_TRY(check_text(entry.key, "a metadata key"));
    XD_TRY(check_value(entry.value, 1));
  }
  XD_TRY(check_value(m.source.config, 1));
  XD_TRY(check_text(m.source.format, "the format"));
  for (const auto& file : m.aux_files) {
    XD_TRY(check_text(file.name, "an auxiliary file's name"));
    if (const auto* input = std::get_if<std::string>(&file.content))
      XD_TRY(check_text(*input, "the name of an auxiliary file's content"));
  }
  for (const auto& step : m.provenance) {
    for (const auto& text : {step.tool, step.plugin, step.input})
      XD_TRY(check_text(text, "the provenance"));
  }
  return {};
}

Result<void> check_index(uint64_t index, size_t count, std::string_view what) {
  if (index < count) return {};
  return corrupt(cat("expected ", what, " below ", count, ", found ", index));
}

}  // namespace

uint64_t element_count(const Tensor& t) { return *checked_product(t.shape); }
uint64_t value_bytes(const Tensor& t) { return *manifest::dense_bytes(t.dtype, element_count(t)); }

std::set<uint64_t> other_names(const Manifest& m) {
  std::set<uint64_t> out;
  for (const manifest::AliasGroup& group : m.alias_groups) {
    for (size_t i = 1; i < group.tensors.size(); ++i) out.insert(group.tensors[i]);
  }
  return out;
}

Result<void> check(const Manifest& m) {
  if (m.schema_version == 0 || m.schema_version > manifest::kSchemaVersion) {
    return unsupported(cat("expected manifest version ", manifest::kSchemaVersion, ", found ",
                           m.schema_version, ": update crossdock"));
  }
  if (m.tensors.size() > kMaxTensors)
    return corrupt(cat("expected at most ", kMaxTensors, " tensors, found ", m.tensors.size()));
  XD_TRY(check_texts(m));
  std::unordered_set<std::string_view> names;
  names.reserve(m.tensors.size());
  uint64_t n_elems = 0;
  for (const Tensor& t : m.tensors) {
    if (auto r = check_tensor(t, m.source.files); !r)
      return std::move(r).error().in(cat("tensor ", quoted(t.name)));
    if (element_count(t) > kMaxElements - n_elems)
      return corrupt(
          cat("expected at most 2^56 elements in all, found more at tensor ", quoted(t.name)));
    n_elems += element_count(t);
    if (t.role > manifest::Role::kOptimizerState || t.train > manifest::Training::kFrozen)
      return corrupt(
          cat("expected a known role and training, found another in tensor ", quoted(t.name)));
    if (!names.insert(t.name).second)
      return corrupt(cat("expected each tensor once, found ", quoted(t.name), " twice"));
  }
  for (const auto& group : m.alias_groups) {  // the first is kept
    for (const uint64_t i : group.tensors)
      XD_TRY(check_index(i, m.tensors.size(), "a tensor of an alias group"));
  }
  for (const auto& entry : m.module) {
    XD_TRY(check_text(entry.name, "a name of the module"));
    XD_TRY(check_index(entry.tensor, m.tensors.size(), "a tensor of the module"));
  }
  XD_TRY(check_text(m.training.optimizer, "the optimizer's name"));
  for (const auto& group : m.training.groups) {
    for (const uint64_t i : group.tensors)
      XD_TRY(check_index(i, m.tensors.size(), "a tensor of a parameter group"));
    for (const auto& entry : group.hyper_parameters) {
      XD_TRY(check_text(entry.key, "a hyper-parameter's name"));
      XD_TRY(check_value(entry.value, 1));
    }
  }
  for (const auto& moment : m.training.moments) {
    XD_TRY(check_text(moment.kind, "a moment's kind"));
    XD_TRY(check_index(std::max(moment.parameter, moment.state), m.tensors.size(),
                       "a tensor of a moment"));
  }
  return {};
}

Result<void> check_aliases(const Manifest& m) {
  for (const auto& group : m.alias_groups) {
    for (const uint64_t i : group.tensors) {
      const Tensor &first = m.tensors[group.tensors[0]], &other = m.tensors[i];
      if (first.dtype != other.dtype || first.shape != other.shape)
        return corrupt(
            cat("expected one type and shape for tensors that share their storage, found ",
                quoted(first.name), " and ", quoted(other.name), " with others"));
    }
  }
  return {};
}

}  // namespace crossdock::model
