// SPDX-License-Identifier: Apache-2.0
#include "member.h"

#include <zlib.h>

#include <algorithm>

namespace npz {

namespace {

constexpr uint64_t kPiece = 64 << 10;  // what is read, and what is skipped, at a time

uint32_t crc_of(uint32_t before, std::span<const std::byte> bytes) {
  return static_cast<uint32_t>(
      crc32_z(before, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

}  // namespace

void RangeCrc::add(uint64_t offset, std::span<const std::byte> bytes) {
  const uint64_t end = offset + bytes.size();
  for (uint64_t at = offset; at < end;) {
    const auto next = pieces_.upper_bound(at);
    if (next != pieces_.begin() && std::prev(next)->second.end > at) {  // known already
      at = std::prev(next)->second.end;
      continue;
    }
    const uint64_t stop = next == pieces_.end() ? end : std::min(end, next->first);
    insert(at, {stop, crc_of(0, bytes.subspan(at - offset, stop - at))});
    at = stop;
  }
}

void RangeCrc::insert(uint64_t begin, Piece piece) {
  const auto join = [](Piece a, Piece b, uint64_t b_bytes) {
    return Piece{b.end, static_cast<uint32_t>(crc32_combine(a.crc, b.crc, b_bytes))};
  };
  auto next = pieces_.lower_bound(begin);
  if (next != pieces_.end() && next->first == piece.end) {
    piece = join(piece, next->second, next->second.end - next->first);
    next = pieces_.erase(next);
  }
  if (next != pieces_.begin() && std::prev(next)->second.end == begin) {
    const auto before = std::prev(next);
    before->second = join(before->second, piece, piece.end - begin);
  } else {
    pieces_.emplace(begin, piece);
  }
}

std::optional<uint32_t> RangeCrc::whole(uint64_t size) const {
  if (pieces_.empty() || pieces_.begin()->first != 0 || pieces_.begin()->second.end != size)
    return std::nullopt;
  return pieces_.begin()->second.crc;
}

// One pass through a deflated member, from its first byte on.
class Inflater {
 public:
  static Result<std::unique_ptr<Inflater>> start(const Source& packed, const Entry& entry) {
    std::unique_ptr<Inflater> out(new Inflater(packed, entry));
    // Negative: the bare stream, as zip has it.
    if (inflateInit2(&out->z_, -MAX_WBITS) != Z_OK)
      return Error{XD_NO_MEMORY, "expected memory to inflate, found none"};
    out->is_open_ = true;
    return out;
  }
  ~Inflater() {
    if (is_open_) inflateEnd(&z_);
  }

  uint64_t position() const { return given_; }
  uint32_t crc() const { return crc_; }

  // The next out.size() bytes, which the member has; `input` is room for packed ones.
  Result<void> next(const Host& host, std::span<std::byte> input, std::span<std::byte> out) {
    for (uint64_t done = 0; done < out.size();) {
      XD_TRY_SET(const uint64_t n, step(host, input, out.subspan(done)));
      if (n == 0 && has_ended_)
        return corrupt(
            cat("expected ", entry_.size, " bytes when it is inflated, found ", given_ + done));
      done += n;
    }
    crc_ = crc_of(crc_, out);
    given_ += out.size();
    put_back();
    return {};
  }

  // After the last byte: the stream and the packed bytes end here too.
  Result<void> finish(const Host& host, std::span<std::byte> input) {
    std::byte more[1];
    while (!has_ended_) {
      XD_TRY_SET(const uint64_t n, step(host, input, more));
      if (n != 0)
        return corrupt(cat("expected ", entry_.size, " bytes when it is inflated, found more"));
    }
    put_back();
    if (taken_ == entry_.packed) return {};
    return corrupt(cat("expected the deflated bytes to end at ", entry_.packed,
                       ", found their end at ", taken_));
  }

 private:
  Inflater(const Source& packed, const Entry& entry) : packed_(packed), entry_(entry) {}

  // What one call of zlib gives, which may be nothing.
  Result<uint64_t> step(const Host& host, std::span<std::byte> input, std::span<std::byte> out) {
    if (has_ended_) return uint64_t{0};
    if (z_.avail_in == 0) {
      const auto piece = input.first(std::min<uint64_t>(input.size(), entry_.packed - taken_));
      XD_TRY(packed_.read(host, taken_, piece));
      taken_ += piece.size();
      z_.next_in = reinterpret_cast<Bytef*>(piece.data());
      z_.avail_in = static_cast<uInt>(piece.size());
    }
    const auto room = static_cast<uInt>(std::min<uint64_t>(out.size(), 1 << 30));
    z_.next_out = reinterpret_cast<Bytef*>(out.data());
    z_.avail_out = room;
    const int status = ::inflate(&z_, Z_NO_FLUSH);
    has_ended_ = status == Z_STREAM_END;
    if (status == Z_BUF_ERROR && taken_ == entry_.packed)
      return corrupt(
          cat("expected the deflated bytes to go on, found their end after ", entry_.packed));
    if (status == Z_MEM_ERROR) return Error{XD_NO_MEMORY, "out of memory while inflating"};
    if (status != Z_OK && !has_ended_)
      return corrupt(cat("expected deflated bytes, found ", z_.msg ? z_.msg : "others"));
    return uint64_t{room - z_.avail_out};
  }

  // What zlib has not used yet is read again next time, so that no buffer lives between reads.
  void put_back() {
    taken_ -= z_.avail_in;
    z_.avail_in = 0;
  }

  const Source packed_;
  const Entry& entry_;
  z_stream z_{};
  bool is_open_ = false, has_ended_ = false;
  uint64_t taken_ = 0, given_ = 0;  // packed bytes, and unpacked ones
  uint32_t crc_ = 0;
};

Member::Member(const Source& source, Entry entry)
    : entry_(std::move(entry)), packed_(source.window(entry_.begin, entry_.packed)) {}
Member::~Member() = default;

uint64_t Member::scratch() const { return entry_.is_deflated ? 2 * kPiece : 0; }

Result<void> Member::check_crc(uint32_t found) const {
  if (found == entry_.crc) return {};
  return corrupt(
      "expected its bytes to have the CRC of the directory, found another: the file is "
      "damaged");
}

Result<void> Member::read(const Host& host, uint64_t offset, std::span<std::byte> out) {
  const auto end = checked_add(offset, out.size());
  if (!end || *end > entry_.size)
    return Error{XD_OUT_OF_RANGE, cat("expected bytes inside of ", entry_.size, ", found ",
                                      out.size(), " at ", offset)};
  if (!entry_.is_deflated) {
    XD_TRY(packed_.read(host, offset, out));
    const std::lock_guard lock(mutex_);
    crc_.add(offset, out);
    const auto found = crc_.whole(entry_.size);
    return found ? check_crc(*found) : Result<void>();
  }
  const std::lock_guard lock(mutex_);
  auto done = inflate(host, offset, out);
  if (!done) stream_.reset();
  return done;
}

Result<void> Member::inflate(const Host& host, uint64_t offset, std::span<std::byte> out) {
  if (!stream_ || offset < stream_->position()) {
    XD_TRY_SET(stream_, Inflater::start(packed_, entry_));
  }
  XD_TRY_SET(const Buffer input, Buffer::make(host, kPiece));
  if (stream_->position() < offset) {
    XD_TRY_SET(const Buffer skipped, Buffer::make(host, kPiece));
    while (stream_->position() < offset) {
      if (host.cancelled()) return Error{XD_CANCELLED, "cancelled"};
      const uint64_t n = std::min(kPiece, offset - stream_->position());
      XD_TRY(stream_->next(host, input.span(), skipped.span().first(n)));
    }
  }
  XD_TRY(stream_->next(host, input.span(), out));
  if (stream_->position() < entry_.size) return {};
  XD_TRY(stream_->finish(host, input.span()));
  const uint32_t found = stream_->crc();
  stream_.reset();
  return check_crc(found);
}

void Member::rest() {
  const std::lock_guard lock(mutex_);
  stream_.reset();
}

}  // namespace npz
