// SPDX-License-Identifier: Apache-2.0
#include "npy.h"

#include <array>

namespace npz {

namespace {

using manifest::DType;

constexpr std::string_view kMagic("\x93NUMPY", 6);

struct Kind {
  std::string_view code;  // behind the byte order
  DType dtype;
};
constexpr auto kKinds = std::to_array<Kind>({{"b1", DType::BOOL},
                                             {"u1", DType::U8},
                                             {"i1", DType::I8},
                                             {"u2", DType::U16},
                                             {"i2", DType::I16},
                                             {"u4", DType::U32},
                                             {"i4", DType::I32},
                                             {"u8", DType::U64},
                                             {"i8", DType::I64},
                                             {"f2", DType::F16},
                                             {"f4", DType::F32},
                                             {"f8", DType::F64},
                                             {"c8", DType::C64},
                                             {"c16", DType::C128}});

// The few Python literals that the header is made of. What does not fit marks it failed().
class Literal {
 public:
  explicit Literal(std::string_view text) : text_(text) {}
  bool failed() const { return failed_; }
  void fail() { failed_ = true; }

  bool take(std::string_view token) {
    skip_blanks();
    if (!text_.substr(at_).starts_with(token)) return false;
    at_ += token.size();
    return true;
  }
  void expect(std::string_view token) { failed_ = failed_ || !take(token); }
  bool at_end() {
    skip_blanks();
    return at_ == text_.size();
  }

  std::string_view string() {
    skip_blanks();
    const char quote = at_ < text_.size() ? text_[at_] : '\0';
    const size_t end = text_.find(quote, at_ + 1);
    if ((quote != '\'' && quote != '"') || end == std::string_view::npos) return fail(), "";
    const auto out = text_.substr(at_ + 1, end - at_ - 1);
    at_ = end + 1;
    return out;
  }
  uint64_t number() {
    skip_blanks();
    std::optional<uint64_t> value;
    for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_) {
      const auto shifted = checked_mul(value.value_or(0), 10);
      value =
          shifted ? checked_add(*shifted, static_cast<uint64_t>(text_[at_] - '0')) : std::nullopt;
      if (!value) break;
    }
    if (!value) fail();
    return value.value_or(0);
  }
  bool boolean() {
    if (take("True")) return true;
    expect("False");
    return false;
  }
  std::vector<uint64_t> tuple() {
    std::vector<uint64_t> out;
    expect("(");
    while (!failed_ && !take(")")) {
      out.push_back(number());
      if (take(",")) continue;
      expect(")");
      if (out.size() == 1) fail();  // Python's (3) is no tuple
      break;
    }
    return out;
  }

 private:
  void skip_blanks() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n')) ++at_;
  }

  std::string_view text_;
  size_t at_ = 0;
  bool failed_ = false;
};

Result<void> set_type(std::string_view descr, NpyHeader& out) {
  const std::string_view order = descr.substr(0, std::min<size_t>(descr.size(), 1));
  const std::string_view code = descr.substr(order.size());
  if (code == "O")
    return unsupported(
        "expected numbers, found an array of Python objects, which is pickled: save it as numbers");
  for (const Kind& kind : kKinds) {
    if (kind.code != code || std::string_view("<>|=").find(order) == std::string_view::npos)
      continue;
    out.dtype = kind.dtype;
    out.is_big_endian = order == ">" && manifest::info(kind.dtype).bits > 8;
    return {};
  }
  return unsupported(
      cat("expected a type of numbers such as <f4, found ", descr, ": save it as one of these"));
}

}  // namespace

Result<uint64_t> npy_header_bytes(std::span<const std::byte> prefix) {
  Cursor in(prefix);
  const auto magic = as_text(in.take(kMagic.size()));
  const uint8_t major = in.u8(), minor = in.u8();
  if (in.failed() || magic != kMagic) return corrupt("expected a .npy file, found another");
  if (major < 1 || major > 3 || minor != 0)
    return unsupported(
        cat("expected version 1.0, 2.0 or 3.0 of .npy, found ", +major, '.', +minor));
  const uint64_t length = major == 1 ? in.le<uint16_t>() : in.le<uint32_t>();
  if (in.failed()) return corrupt("expected the length of the .npy header, found the end");
  if (length > kMaxNpyHeader)
    return corrupt(
        cat("expected a .npy header of at most ", kMaxNpyHeader, " bytes, found ", length));
  return in.offset() + length;
}

Result<NpyHeader> parse_npy_header(std::span<const std::byte> header) {
  const uint64_t begin = static_cast<uint8_t>(header[6]) == 1 ? 10 : 12;
  Literal in(as_text(header.subspan(begin)));
  NpyHeader out{};
  std::string_view descr;
  bool has_descr = false, has_order = false, has_shape = false;
  in.expect("{");
  while (!in.failed() && !in.take("}")) {
    const auto key = in.string();
    in.expect(":");
    if (key == "descr" && !has_descr) {
      if (in.take("["))
        return unsupported("expected numbers, found records of several fields: save each alone");
      descr = in.string();
      has_descr = true;
    } else if (key == "fortran_order" && !has_order) {
      out.is_fortran = in.boolean();
      has_order = true;
    } else if (key == "shape" && !has_shape) {
      out.shape = in.tuple();
      has_shape = true;
    } else {
      in.fail();
    }
    if (in.take(",")) continue;
    in.expect("}");
    break;
  }
  if (in.failed() || !in.at_end() || !has_descr || !has_order || !has_shape)
    return corrupt(
        "expected descr, fortran_order and shape in the .npy header, found something else");
  XD_TRY(set_type(descr, out));
  return out;
}

}  // namespace npz
