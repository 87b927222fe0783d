// SPDX-License-Identifier: Apache-2.0
#include "plugins/reader_safetensors/header.h"

#include "plugins/common/json.h"
#include "plugins/common/magic.h"
#include "plugins/common/quote.h"

#include <algorithm>
#include <array>

namespace crossdock::reader_safetensors {

namespace {

using common::in_quotes;
using common::kind_of;
using manifest::DType;
namespace dom = simdjson::dom;

constexpr std::string_view kMetadata = "__metadata__";
constexpr std::string_view kDownloadAgain =
    "the file is cut off, as by an interrupted download: run `hf download` again";

Result<uint64_t> integer(dom::element element, std::string_view what) {
  uint64_t value = 0;
  if (element.get(value) == simdjson::SUCCESS) return value;
  std::string found(kind_of(element));
  if (int64_t negative = 0; element.get(negative) == simdjson::SUCCESS) found = cat(negative);
  return corrupt(cat("expected integers of 0 or more in ", what, ", found ", found));
}

Result<dom::element> member(dom::object object, std::string_view key) {
  dom::element out;
  if (object.at_key(key).get(out) == simdjson::SUCCESS) return out;
  return corrupt(cat("expected the field ", in_quotes(key), ", found none"));
}

Result<dom::array> array_member(dom::object object, std::string_view key) {
  XD_TRY_SET(const auto element, member(object, key));
  dom::array out;
  if (element.get(out) == simdjson::SUCCESS) return out;
  return corrupt(cat("expected ", in_quotes(key), " to be an array, found ", kind_of(element)));
}

// C32 and C128 are types of torch that the format does not have.
Result<DType> parse_dtype(dom::object object) {
  XD_TRY_SET(const auto element, member(object, "dtype"));
  std::string_view name;
  if (element.get(name) != simdjson::SUCCESS)
    return corrupt(cat("expected \"dtype\" to be a string, found ", kind_of(element)));
  const auto dtype = manifest::dtype_named(name);
  if (dtype && *dtype != DType::C32 && *dtype != DType::C128) return *dtype;
  return unsupported(
      cat("expected a dtype of safetensors 0.8 (BF16, F32, ...), found ", in_quotes(name)));
}

// Sets n_elems and n_bytes from the dtype and the shape.
Result<void> measure(HeaderTensor& t) {
  const auto n_elems = checked_product(t.shape);
  const auto n_bits = n_elems ? checked_mul(*n_elems, manifest::info(t.dtype).bits) : std::nullopt;
  if (!n_bits) return corrupt("expected a shape whose size fits 64 bits, found one that does not");
  if (*n_bits % 8 != 0) {
    return corrupt(cat("expected ", manifest::name(t.dtype),
                       " elements to fill whole bytes, found ", *n_elems, " of ",
                       manifest::info(t.dtype).bits, " bits"));
  }
  t.n_elems = *n_elems;
  t.n_bytes = *n_bits / 8;
  return {};
}

// One entry of the header; its offset counts from the end of the header.
Result<HeaderTensor> parse_entry(dom::element element) {
  dom::object object;
  if (element.get(object) != simdjson::SUCCESS)
    return corrupt(cat("expected an object, found ", kind_of(element)));
  XD_TRY(common::check_unique_keys(object, "its entry"));
  HeaderTensor out;
  XD_TRY_SET(out.dtype, parse_dtype(object));
  XD_TRY_SET(const auto shape, array_member(object, "shape"));
  if (shape.size() > kMaxDimensions)
    return unsupported(
        cat("expected at most ", kMaxDimensions, " dimensions, found ", shape.size()));
  for (const auto dim : shape) {
    XD_TRY_SET(out.shape.emplace_back(), integer(dim, "\"shape\""));
  }
  XD_TRY_SET(const auto offsets, array_member(object, "data_offsets"));
  if (offsets.size() != 2)
    return corrupt(
        cat("expected \"data_offsets\" to be [begin, end], found ", offsets.size(), " values"));
  XD_TRY_SET(out.offset, integer(*offsets.begin(), "\"data_offsets\""));
  XD_TRY_SET(const uint64_t end, integer(*++offsets.begin(), "\"data_offsets\""));
  XD_TRY(measure(out));
  if (end < out.offset || end - out.offset != out.n_bytes) {
    return corrupt(cat("expected ", out.n_bytes,
                       " bytes for its dtype and shape, found data_offsets [", out.offset, ", ",
                       end, "]"));
  }
  return out;
}

Result<std::vector<std::pair<std::string, std::string>>> parse_metadata(dom::element element) {
  std::vector<std::pair<std::string, std::string>> out;
  if (element.is_null()) return out;
  dom::object object;
  if (element.get(object) != simdjson::SUCCESS)
    return corrupt(cat("expected an object of strings, found ", kind_of(element)));
  XD_TRY(common::check_unique_keys(object, kMetadata));
  for (const auto& [key, value] : object) {
    std::string_view text;
    if (value.get(text) != simdjson::SUCCESS)
      return corrupt(cat("key ", in_quotes(key), ": expected a string, found ", kind_of(value)));
    out.emplace_back(key, text);
  }
  return out;
}

// The tensors must lie one after another, from the end of the header to the end of the file: no
// holes, nothing shared, nothing left over. Sorts them by their bytes.
Result<void> check_tiling(std::vector<HeaderTensor>& tensors, uint64_t data_bytes) {
  const auto by_place = [](const HeaderTensor& a, const HeaderTensor& b) {
    return std::pair(a.offset, a.n_bytes) < std::pair(b.offset, b.n_bytes);
  };
  if (!std::is_sorted(tensors.begin(), tensors.end(), by_place))
    std::stable_sort(tensors.begin(), tensors.end(), by_place);
  uint64_t at = 0;
  for (const HeaderTensor& t : tensors) {
    if (t.offset != at) {
      return corrupt(cat("tensor ", in_quotes(t.name), ": expected its bytes to begin at ", at,
                         ", where ", at == 0 ? "the data begins" : "the tensor before it ends",
                         ", found ", t.offset, t.offset > at ? " (a hole)" : " (an overlap)",
                         ": save the file again"));
    }
    at += t.n_bytes;
  }
  if (at > data_bytes)
    return corrupt(
        cat("expected ", at, " bytes of tensors, found ", data_bytes, ": ", kDownloadAgain));
  if (at < data_bytes) {
    return corrupt(cat("expected ", at, " bytes of tensors, found ", data_bytes - at,
                       " bytes more after them: save the file again"));
  }
  return {};
}

// What people have in place of the file: `git clone` without LFS leaves a small text.
bool is_lfs_pointer(std::span<const std::byte> head) { return as_text(head) == "version "; }

// `file_size`: of the whole file, of which the header takes the first `data_begin` bytes.
Result<Header> parse_header(dom::element root, uint64_t data_begin, uint64_t file_size) {
  dom::object top;
  if (root.get(top) != simdjson::SUCCESS)
    return corrupt(cat("expected the header to be an object, found ", kind_of(root)));
  XD_TRY(common::check_unique_keys(top, "the header"));
  Header out;
  out.tensors.reserve(top.size());
  for (const auto& [name, element] : top) {
    if (name == kMetadata) {
      auto metadata = parse_metadata(element);
      if (!metadata) return std::move(metadata).error().in(kMetadata);
      out.metadata = *std::move(metadata);
      continue;
    }
    auto tensor = parse_entry(element);
    if (!tensor) return std::move(tensor).error().in(cat("tensor ", in_quotes(name)));
    tensor->name = name;
    out.tensors.push_back(*std::move(tensor));
  }
  XD_TRY(check_tiling(out.tensors, file_size - data_begin));
  for (HeaderTensor& t : out.tensors) t.offset += data_begin;
  return out;
}

}  // namespace

Result<Header> read_header(const Host& host, const Source& source,
                           std::span<const std::byte> beginning) {
  const uint64_t size = source.size(host);
  if (size < kLengthBytes)
    return corrupt(cat("expected a safetensors file, found ", size, " bytes: ", kDownloadAgain));
  std::array<std::byte, kLengthBytes> head;
  if (beginning.size() >= kLengthBytes) {
    std::copy_n(beginning.begin(), kLengthBytes, head.begin());
  } else {
    XD_TRY(source.read(host, 0, head));
  }
  const auto header_bytes = Cursor(head).le<uint64_t>();
  const bool fits = header_bytes <= kMaxHeaderBytes && header_bytes <= size - kLengthBytes;
  if (!fits && is_lfs_pointer(head))
    return corrupt("expected a safetensors file, found a Git LFS pointer: run `git lfs pull`");
  if (const std::string_view what = common::what_begins_with(as_text(head)); !fits && !what.empty())
    return corrupt(cat("expected a safetensors file, found ", what));
  if (header_bytes > kMaxHeaderBytes) {
    return corrupt(cat("expected a header of at most ", kMaxHeaderBytes,
                       " bytes, found a length of ", header_bytes,
                       ": this is not a safetensors file, or it is damaged"));
  }
  if (header_bytes > size - kLengthBytes) {
    return corrupt(cat("expected a header of ", header_bytes, " bytes, found ", size - kLengthBytes,
                       ": ", kDownloadAgain));
  }
  const bool is_read = beginning.size() >= kLengthBytes + header_bytes;
  auto doc = is_read ? common::parse_json(as_text(beginning.subspan(kLengthBytes, header_bytes)))
                     : common::read_json(host, source, kLengthBytes, header_bytes);
  if (!doc)
    return doc.error().held_by_host ? std::move(doc).error() : std::move(doc).error().in("header");
  return parse_header(doc->root(), kLengthBytes + header_bytes, size);
}

}  // namespace crossdock::reader_safetensors
