// SPDX-License-Identifier: Apache-2.0
#include "plugins/reader_zero/universal_info.h"

#include "plugins/common/quote.h"
#include "plugins/torch/read/torch_file.h"

#include <algorithm>

namespace crossdock::reader_zero {

namespace {

using common::in_quotes;
using namespace deepspeed;

constexpr std::string_view kInfo = "universal_checkpoint_info";
constexpr uint64_t kAffineVersion = 1;
constexpr size_t kMaxPatterns = 1'000'000, kMaxPieces = 4'000'000;

// Reads the dict; counts what it makes, for a list may be there a million times.
class InfoReader {
 public:
  explicit InfoReader(const Dict& dict) : dict_(dict) {}

  Result<UniversalInfo> run() {
    UniversalInfo out;
    if (const Value* v = dict_.find("universal_checkpoint_version")) {
      if (v->kind == Kind::kFloat) out.version = v->real();
      if (const auto n = integer(dict_.pickle(), *v)) out.version = static_cast<double>(*n);
    }
    XD_TRY(refuse_unsupported());
    XD_TRY_SET(out.replicated, patterns("tp_replicated_parameter_patterns"));
    XD_TRY_SET(out.averaged, patterns("parameter_to_average_patterns"));
    XD_TRY_SET(out.row_parallel, patterns("parameter_with_row_parallelism_patterns"));
    XD_TRY_SET(out.vocabulary, patterns("vocabulary_parameter_patterns"));
    XD_TRY_SET(out.two_sub_parameters, patterns("parameter_with_2_sub_params_cat_dim_0"));
    XD_TRY_SET(out.pipeline_replicated, patterns("pipeline_replicated_parameter_patterns"));
    XD_TRY(add_sub_parameters(out));
    XD_TRY(add_affine(out));
    XD_TRY_SET(out.original_vocab_size, dict_.natural("original_vocab_size"));
    return out;
  }

 private:
  Result<void> refuse_unsupported() const {
    if (!dict_.find("autotp_unsupported_parameter_patterns")) return {};
    XD_TRY_SET(const Dict dict, dict_.dict("autotp_unsupported_parameter_patterns"));
    const auto items = dict.items();
    if (items.empty()) return {};
    const auto text = [&](const Value& v) {
      return v.kind == Kind::kText ? in_quotes(dict.pickle().text(v)) : std::string("(no text)");
    };
    return unsupported(
        cat("expected parameters whose tensor-parallel shares can be put together, found ",
            text(items[0]), ", of which DeepSpeed says that they cannot: ", text(items[1])));
  }

  Result<Pattern> pattern(const Value& value, const std::string& place) {
    if (value.kind != Kind::kText)
      return corrupt(cat(place, ": expected patterns, found ", torch_read::name_of(value.kind)));
    if (++n_patterns_ > kMaxPatterns)
      return unsupported(cat(place, ": expected at most ", kMaxPatterns, " patterns, found more"));
    auto out = Pattern::compile(dict_.pickle().text(value));
    if (!out) return std::move(out).error().in(place);
    return out;
  }

  Result<UniversalInfo::Patterns> patterns(std::string_view key) {
    UniversalInfo::Patterns out;
    if (!dict_.find(key)) return out;
    XD_TRY_SET(const auto list, dict_.list(key));
    for (const Value& v : list) {
      XD_TRY_SET(out.emplace_back(), pattern(v, dict_.place_of(key)));
    }
    return out;
  }

  // Of a list or tuple of them.
  Result<std::vector<uint64_t>> naturals(const Value* value, const std::string& place) {
    std::vector<uint64_t> out;
    const auto values = value ? sequence(dict_.pickle(), *value) : std::span<const Value>();
    bool fits = value && (value->kind == Kind::kList || value->kind == Kind::kTuple) &&
                values.size() <= kMaxPieces;
    for (const Value& v : values) {
      const auto n = fits ? integer(dict_.pickle(), v) : std::nullopt;
      fits = n && *n >= 0 && ++n_numbers_ <= 16 * kMaxPieces;
      if (fits) out.push_back(static_cast<uint64_t>(*n));
    }
    if (fits) return out;
    return corrupt(cat(place, ": expected a list of numbers of 0 or more, found other values"));
  }

  Result<void> add_sub_parameters(UniversalInfo& out) {
    constexpr std::string_view kKey = "parameter_with_sub_params";
    if (!dict_.find(kKey)) return {};
    std::optional<Dict> widths;
    if (dict_.find("sub_param_shard_widths")) {
      XD_TRY_SET(widths, dict_.dict("sub_param_shard_widths"));
    }
    XD_TRY_SET(const auto list, dict_.list(kKey));
    for (const Value& v : list) {
      XD_TRY_SET(const Dict entry, Dict::of(dict_.pickle(), v, dict_.place_of(kKey)));
      XD_TRY_SET(const SubParameters one, sub_parameters(entry));
      XD_TRY_SET(const auto texts, entry.list("patterns"));
      for (const Value& text : texts) {
        XD_TRY_SET(Pattern p, pattern(text, entry.place_of("patterns")));
        SubParameters of_pattern = one;
        if (widths) {
          XD_TRY_SET(of_pattern.widths, widths_of(*widths, p.text()));
        }
        out.sub_parameters.emplace_back(std::move(p), std::move(of_pattern));
      }
    }
    return {};
  }

  Result<std::vector<std::vector<uint64_t>>> widths_of(const Dict& widths,
                                                       const std::string& pattern) {
    std::vector<std::vector<uint64_t>> out;
    if (!widths.find(pattern)) return out;
    XD_TRY_SET(const auto lists, widths.list(pattern));
    for (const Value& list : lists) {
      XD_TRY_SET(out.emplace_back(), naturals(&list, widths.place_of(pattern)));
    }
    return out;
  }

  // Sizes are numbers; that along partition_dim may be a tuple, of each sub-parameter.
  Result<SubParameters> sub_parameters(const Dict& entry) {
    SubParameters out;
    XD_TRY_SET(const auto dim, entry.natural("partition_dim"));
    XD_TRY_SET(const auto shape, entry.list("shape"));
    if (!dim || *dim >= shape.size() || shape.size() > torch_read::kMaxDimensions)
      return corrupt(cat(entry.place(), ": expected a partition_dim of its shape, found another"));
    out.partition_dim = *dim;
    for (size_t d = 0; d < shape.size(); ++d) {
      const Value& v = shape[d];
      const auto n = integer(entry.pickle(), v);
      if (n && *n >= -1) {
        out.shape.push_back(*n);
        continue;
      }
      XD_TRY_SET(const auto sizes, naturals(&v, entry.place_of("shape")));
      uint64_t sum = 0;
      for (const uint64_t size : sizes) sum += std::min<uint64_t>(size, UINT32_MAX);
      out.shape.push_back(static_cast<int64_t>(sum));
      if (d == *dim) out.sizes = sizes;
    }
    return out;
  }

  Result<void> add_affine(UniversalInfo& out) {
    if (!dict_.find("affine_map")) return {};
    XD_TRY_SET(const Dict affine, dict_.dict("affine_map"));
    XD_TRY_SET(const auto version, affine.natural("version"));
    if (version.value_or(kAffineVersion) > kAffineVersion)
      return unsupported(cat(affine.place(), ": expected version ", kAffineVersion, ", found ",
                             *version, ": a newer DeepSpeed wrote it"));
    if (!affine.find("params")) return {};
    XD_TRY_SET(const Dict params, affine.dict("params"));
    const auto items = params.items();
    for (size_t i = 0; i + 1 < items.size(); i += 2) {
      XD_TRY_SET(Pattern p, pattern(items[i], params.place()));
      const std::string place = params.place_of(p.text());
      XD_TRY_SET(const Dict dict, Dict::of(params.pickle(), items[i + 1], place));
      XD_TRY_SET(AffineMap map, affine_map(dict));
      out.affine.emplace_back(std::move(p), std::move(map));
    }
    return {};
  }

  Result<AffineMap> affine_map(const Dict& dict) {
    AffineMap out;
    XD_TRY_SET(out.logical_shape,
               naturals(dict.find("logical_shape"), dict.place_of("logical_shape")));
    XD_TRY_SET(const Dict ranks, dict.dict("ranks"));
    const auto items = ranks.items();
    for (size_t i = 0; i + 1 < items.size(); i += 2) {
      const auto rank = integer(dict.pickle(), items[i]);
      if (!rank || *rank < 0)
        return corrupt(cat(ranks.place(), ": expected ranks' numbers as keys, found others"));
      const std::string place = ranks.place_of(cat(*rank));
      XD_TRY_SET(const Dict entry, Dict::of(dict.pickle(), items[i + 1], place));
      XD_TRY_SET(out.ranks[static_cast<uint64_t>(*rank)], affine_rank(entry));
    }
    return out;
  }

  Result<AffineMap::Rank> affine_rank(const Dict& entry) {
    AffineMap::Rank out;
    XD_TRY_SET(out.shard_shape, naturals(entry.find("shard_shape"), entry.place_of("shard_shape")));
    XD_TRY_SET(const auto list, entry.list("pieces"));
    for (const Value& v : list) {
      if (++n_pieces_ > kMaxPieces)
        return unsupported(
            cat(entry.place(), ": expected at most ", kMaxPieces, " pieces, found more"));
      XD_TRY_SET(const Dict dict, Dict::of(entry.pickle(), v, entry.place_of("pieces")));
      AffinePiece& piece = out.pieces.emplace_back();
      XD_TRY_SET(piece.shape, naturals(dict.find("shape"), dict.place_of("shape")));
      XD_TRY(view(dict, "source", piece.source_offset, piece.source_strides));
      XD_TRY(view(dict, "dest", piece.dest_offset, piece.dest_strides));
      const Value* scale = dict.find("scale");
      piece.is_scaled = scale && !(scale->kind == Kind::kFloat && scale->real() == 1.0);
    }
    return out;
  }

  // [offset, [stride, ...]]
  Result<void> view(const Dict& piece, std::string_view key, uint64_t& offset,
                    std::vector<uint64_t>& strides) {
    XD_TRY_SET(const auto pair, piece.list(key));
    const auto n = pair.size() == 2 ? integer(piece.pickle(), pair[0]) : std::nullopt;
    if (!n || *n < 0)
      return corrupt(cat(piece.place_of(key), ": expected an offset and strides, found others"));
    offset = static_cast<uint64_t>(*n);
    XD_TRY_SET(strides, naturals(&pair[1], piece.place_of(key)));
    return {};
  }

  const Dict& dict_;
  size_t n_patterns_ = 0, n_pieces_ = 0, n_numbers_ = 0;
};

}  // namespace

Result<std::optional<UniversalInfo>> read_universal_info(const Dict& root) {
  if (!root.find(kInfo)) return std::optional<UniversalInfo>();
  XD_TRY_SET(const Dict dict, root.dict(kInfo));
  XD_TRY_SET(UniversalInfo out, InfoReader(dict).run());
  return std::optional(std::move(out));
}

}  // namespace crossdock::reader_zero
