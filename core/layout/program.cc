#include "core/layout/program.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace crossdock::layout {

namespace {

void change_values(float add, bool log_of_negated, std::span<std::byte> bytes) {
  for (size_t at = 0; at < bytes.size(); at += sizeof(float)) {
    float value;
    std::memcpy(&value, &bytes[at], sizeof(float));
    if (log_of_negated)
      value =
          static_cast<float>(std::log(-double{value}));  // rounded once: the same on every machine
    if (add != 0) value += add;
    std::memcpy(&bytes[at], &value, sizeof(float));
  }
}

}  // namespace

void Program::prepare() {
  prepared_.clear();
  for (const Piece& piece : pieces) {
    Prepared& p = prepared_.emplace_back();
    p.factors = piece.view.factors();
    for (uint64_t dim = pieces.size() == 1 ? 0 : join_dim; dim < piece.view.rank(); ++dim)
      p.inner *= piece.view.size(dim);
  }
  const auto in_order = [](const std::vector<Factor>& f) {
    return f.empty() || (f.size() == 1 && f[0].stride == 1);
  };
  plain_ = pieces.size() == 1 && add == 0 && !log_of_negated && pieces[0].view.offset() == 0 &&
           in_order(prepared_[0].factors);
}

Result<void> Program::run(uint64_t elem_bytes, uint64_t begin, std::span<std::byte> out,
                          std::span<std::byte> scratch, const Read& read) const {
  uint64_t whole = 0;  // elements for each outer step, of all pieces
  for (const Prepared& p : prepared_) whole += p.inner;
  std::span<std::byte> left = out;
  while (!left.empty()) {
    const uint64_t step = begin / whole;
    uint64_t at = begin % whole;
    for (size_t i = 0; i < pieces.size() && !left.empty(); ++i) {
      const uint64_t inner = prepared_[i].inner;
      if (at >= inner) {
        at -= inner;
        continue;
      }
      const uint64_t n = std::min(inner - at, left.size() / elem_bytes);
      const ReadStored stored = [&](uint64_t from, std::span<std::byte> to) {
        return read(pieces[i].tensor, from, to);
      };
      XD_TRY(gather(prepared_[i].factors, pieces[i].view.offset(), elem_bytes, step * inner + at,
                    left.first(n * elem_bytes), scratch, stored));
      left = left.subspan(n * elem_bytes);
      begin += n;
      at = 0;
    }
  }
  if (add != 0 || log_of_negated) change_values(add, log_of_negated, out);
  return {};
}

}  // namespace crossdock::layout
