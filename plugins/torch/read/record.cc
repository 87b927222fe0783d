// SPDX-License-Identifier: Apache-2.0
#include "plugins/torch/read/record.h"

#include "plugins/common/crc32.h"

#include <zlib.h>

#include <algorithm>
#include <array>

namespace crossdock::torch_read {

namespace {

constexpr size_t kInputBytes = 64 << 10;
constexpr size_t kMaxKept =
    16;  // streams that wait for their next range: as many as threads that read at once
constexpr uint64_t kSkipBytes = 64 << 10;
constexpr uint64_t kCrcBytes = 1 << 20;

}  // namespace

struct Inflater::State {
  z_stream stream{};
  std::array<Bytef, kInputBytes> input;
  bool ready = false, ended = false;
};

Inflater::Inflater(const Source& source, const Record& record)
    : source_(source), record_(record), state_(std::make_unique<State>()) {
  state_->ready = inflateInit2(&state_->stream, -MAX_WBITS) == Z_OK;  // raw: no zlib header in zip
}

Inflater::~Inflater() {
  if (state_->ready) inflateEnd(&state_->stream);
}

Error Inflater::broken(std::string_view found) const {
  return corrupt(cat("expected deflated data of ", record_.n_bytes, " bytes, found ", found,
                     " at byte ", at_));
}

// Some of the next bytes: at least one, or none at the end of the stream.
Result<uint64_t> Inflater::step(const Host& host, std::span<std::byte> out) {
  State& s = *state_;
  while (!s.ended) {
    if (s.stream.avail_in == 0 && taken_ < record_.n_stored) {
      const uint64_t n = std::min<uint64_t>(kInputBytes, record_.n_stored - taken_);
      XD_TRY(source_.read(host, record_.offset + taken_,
                          std::as_writable_bytes(std::span(s.input)).first(n)));
      taken_ += n;
      s.stream.next_in = s.input.data();
      s.stream.avail_in = static_cast<uInt>(n);
    }
    const auto room = static_cast<uInt>(std::min<uint64_t>(out.size(), 1u << 30));
    s.stream.next_out = reinterpret_cast<Bytef*>(out.data());
    s.stream.avail_out = room;
    const int status = inflate(&s.stream, Z_NO_FLUSH);
    s.ended = status == Z_STREAM_END;
    const uint64_t made = room - s.stream.avail_out;
    if (made > 0) return made;
    if (status != Z_OK && status != Z_STREAM_END && status != Z_BUF_ERROR)
      return broken("other data");
    if (!s.ended && s.stream.avail_in == 0 && taken_ == record_.n_stored) return broken("its end");
  }
  return uint64_t{0};
}

Result<void> Inflater::read(const Host& host, std::span<std::byte> out) {
  State& s = *state_;
  if (!s.ready) return Error{XD_NO_MEMORY, "expected memory to inflate, found too little"};
  while (!out.empty()) {
    XD_TRY_SET(const uint64_t made, step(host, out));
    if (made == 0) return broken("its end");
    out = out.subspan(made);
    at_ += made;
  }
  if (at_ < record_.n_bytes) return {};
  // The stream must end here too, and with it the record: nothing may hide behind.
  std::byte more{};
  XD_TRY_SET(const uint64_t made, step(host, {&more, 1}));
  if (made > 0 || s.stream.avail_in > 0 || taken_ < record_.n_stored) return broken("more data");
  return {};
}

std::unique_ptr<Inflater> RecordReader::take(const Record& record, uint64_t offset) {
  const std::lock_guard lock(mutex_);
  // The one that has come closest to the offset, if any is not past it.
  auto best = kept_.end();
  for (auto it = kept_.begin(); it != kept_.end(); ++it) {
    if (&(*it)->record() != &record || (*it)->at() > offset) continue;
    if (best == kept_.end() || (*it)->at() > (*best)->at()) best = it;
  }
  if (best == kept_.end()) return std::make_unique<Inflater>(source_, record);
  auto out = std::move(*best);
  kept_.erase(best);
  return out;
}

void RecordReader::keep(std::unique_ptr<Inflater> inflater) {
  if (inflater->at() == inflater->record().n_bytes) return;
  const std::lock_guard lock(mutex_);
  if (kept_.size() == kMaxKept) kept_.erase(kept_.begin());
  kept_.push_back(std::move(inflater));
}

Result<void> RecordReader::read(const Host& host, const Record& record, uint64_t offset,
                                std::span<std::byte> out) {
  if (offset > record.n_bytes || out.size() > record.n_bytes - offset)
    return Error{XD_OUT_OF_RANGE, cat("expected a range inside ", record.n_bytes, " bytes, found ",
                                      out.size(), " at ", offset)};
  if (out.empty()) return {};
  if (!record.deflated) return source_.read(host, record.offset + offset, out);
  auto inflater = take(record, offset);
  std::vector<std::byte> skipped(std::min(kSkipBytes, offset - inflater->at()));
  while (inflater->at() < offset) {
    if (host.cancelled()) return Error{XD_CANCELLED, "cancelled"};
    XD_TRY(inflater->read(host, std::span(skipped).first(
                                    std::min<uint64_t>(skipped.size(), offset - inflater->at()))));
  }
  XD_TRY(inflater->read(host, out));
  keep(std::move(inflater));
  return {};
}

Result<uint32_t> crc_of(const Host& host, RecordReader& reader, const Record& record) {
  XD_TRY_SET(const Buffer buffer,
             Buffer::make(host, std::clamp<uint64_t>(record.n_bytes, 1,
                                                     std::min(kCrcBytes, host.piece_bytes()))));
  uint32_t crc = 0;
  for (uint64_t done = 0; done < record.n_bytes;) {
    if (host.cancelled()) return Error{XD_CANCELLED, "cancelled"};
    const auto piece =
        buffer.span().first(std::min<uint64_t>(buffer.span().size(), record.n_bytes - done));
    XD_TRY(reader.read(host, record, done, piece));
    crc = common::crc32(piece, crc);
    done += piece.size();
  }
  return crc;
}

}  // namespace crossdock::torch_read
