#include "plugins/writer_safetensors/stream.h"

#include <algorithm>
#include <optional>

#include "plugins/common/infinities.h"

namespace crossdock::writer_safetensors {
namespace {

using common::count_infinities;
using manifest::DType;

constexpr uint64_t kLargestElement = 16;

// A buffer, or none for no bytes.
Result<std::optional<Buffer>> make_buffer(const Host& host, uint64_t size) {
  if (size == 0) return std::optional<Buffer>();
  XD_TRY_SET(Buffer made, Buffer::make(host, size));
  return std::optional<Buffer>(std::move(made));
}

class ItemWriter {
 public:
  ItemWriter(const Host& host, const manifest::Manifest& model, uint64_t offset, ItemMemory memory,
             Object& out)
      : host_(host), model_(model), memory_(memory), out_(out), offset_(offset) {}

  Result<Overflow> run(const File& file, const Item& item) {
    // Neighbours share a piece, so that many small tensors are not as many writes.
    const uint64_t size = std::min(memory_.output, std::max(host_.piece_bytes(), kLargestElement));
    XD_TRY_SET(const auto buffer, make_buffer(host_, size));
    if (buffer) buffer_ = buffer->span();
    for (const Part& part : item.parts) XD_TRY(write(file.tensors[part.tensor], part));
    XD_TRY(flush());
    return overflow_;
  }

 private:
  Result<void> write(const Written& tensor, const Part& part) {
    const Unit unit = unit_of(tensor.dtype);
    for (uint64_t done = 0; done < part.count;) {
      const uint64_t room = (buffer_.size() - filled_) / unit.n_bytes * unit.n_elems;
      if (room == 0) {
        XD_TRY(flush());
        continue;
      }
      if (host_.cancelled()) return Error{XD_CANCELLED, "cancelled"};
      const uint64_t n = std::min(part.count - done, room);
      const auto piece = buffer_.subspan(filled_, n / unit.n_elems * unit.n_bytes);
      XD_TRY(read_tensor(host_, range_of(tensor, part.begin + done, n), piece));
      if (tensor.may_overflow) XD_TRY(count_overflow(tensor, part.begin + done, n, piece));
      filled_ += piece.size();
      done += n;
    }
    return {};
  }

  // The infinities of what is written, less those that the source had. It is looked at again only
  // where there are some, which is seldom.
  Result<void> count_overflow(const Written& tensor, uint64_t begin, uint64_t count,
                              std::span<const std::byte> written) {
    uint64_t n = count_infinities(written, tensor.dtype);
    if (n == 0) return {};
    const DType stored = model_.tensors[tensor.tensor].dtype;
    const uint64_t elem_bytes = manifest::info(stored).bits / 8;
    const uint64_t size = std::min(memory_.source, std::max(host_.piece_bytes(), kLargestElement));
    XD_TRY_SET(const Buffer buffer, Buffer::make(host_, size));
    for (uint64_t done = 0; done < count;) {
      const uint64_t some = std::min(count - done, size / elem_bytes);
      const auto values = buffer.span().first(some * elem_bytes);
      XD_TRY(read_tensor(host_, dense_range(tensor.tensor, begin + done, some), values));
      n -= std::min(n, count_infinities(values, stored));
      done += some;
    }
    if (n > 0) overflow_.add({n, tensor.tensor});
    return {};
  }

  Result<void> flush() {
    if (filled_ == 0) return {};
    XD_TRY(out_.write(offset_, buffer_.first(filled_)));
    offset_ += filled_;
    filled_ = 0;
    return {};
  }

  const Host& host_;
  const manifest::Manifest& model_;
  const ItemMemory memory_;
  Object& out_;
  uint64_t offset_;  // where the buffer goes in the object
  std::span<std::byte> buffer_;
  uint64_t filled_ = 0;
  Overflow overflow_;
};

}  // namespace

Result<Overflow> write_item(const Host& host, const manifest::Manifest& model, const File& file,
                            const Item& item, Object& out) {
  if (item.is_first) XD_TRY(out.write(0, as_bytes(head(file, model))));
  return ItemWriter(host, model, file.head_bytes + item.begin, memory_of(file, item), out)
      .run(file, item);
}

}  // namespace crossdock::writer_safetensors
