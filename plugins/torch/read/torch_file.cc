// SPDX-License-Identifier: Apache-2.0
#include "plugins/torch/read/torch_file.h"

#include "plugins/common/magic.h"
#include "plugins/common/quote.h"

#include <algorithm>
#include <array>
#include <map>

namespace crossdock::torch_read {

namespace {

using common::in_quotes;
using namespace std::string_view_literals;

// torch.serialization.MAGIC_NUMBER as a pickled integer, behind the protocol's two bytes.
constexpr std::string_view kLegacyMagic = "\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."sv;
constexpr std::string_view kZipMagic = "PK\x03\x04";
constexpr uint64_t kLegacyProtocol = 1001;
constexpr uint64_t kFirstLegacyBytes = 1 << 20;  // holds the pickles of most files
constexpr uint64_t kMaxByteorder = 16;

// What the file is instead.
Error foreign(std::string_view head, uint64_t size) {
  if (const std::string_view what = common::what_begins_with(head); !what.empty())
    return unsupported(cat("expected a file of torch.save, found ", what));
  constexpr uint64_t kTarMagicAt = 257;
  if (head.size() > kTarMagicAt && head.substr(kTarMagicAt).starts_with("ustar")) {
    return unsupported(
        "expected a file of torch.save, found a tar file of torch 0.1: load it with torch 1.x and "
        "torch.save it again");
  }
  if (head.size() > 8 && head[8] == '{')
    return unsupported(
        "expected a file of torch.save, found what looks like safetensors: use --from safetensors, "
        "and "
        "the name *.safetensors");
  if (head.starts_with('\x80'))
    return unsupported(
        "expected a file of torch.save, found a pickle of another program: nothing was run");
  if (size == 0)
    return corrupt(
        "expected a file of torch.save, found an empty file, as an interrupted download leaves: "
        "download it again");
  return unsupported(
      "expected a file of torch.save, found other bytes: it is no checkpoint of torch, or damaged");
}

Error in_pickle(std::string_view name, Error e) {
  return e.held_by_host ? std::move(e) : std::move(e).in(name);
}

// The pickles in front of a legacy file's storages.
struct LegacyPickles {
  Pickle object, keys;
};
Result<LegacyPickles> parse_legacy(std::string_view bytes) {
  uint64_t at = 2 + kLegacyMagic.size();
  XD_TRY_SET(const Pickle protocol, read_pickle(bytes, at));
  if (protocol.root().kind != Kind::kInt || protocol.root().data != kLegacyProtocol)
    return unsupported(cat("expected protocol ", kLegacyProtocol, " of torch.save, found another"));
  // Byte order and sizes of the machine that wrote it. torch writes storages little-endian on all,
  // and ignores this.
  XD_TRY_SET(const Pickle machine, read_pickle(bytes, protocol.end()));
  XD_TRY_SET(Pickle object, read_pickle(bytes, machine.end()));
  XD_TRY_SET(Pickle keys, read_pickle(bytes, object.end()));
  return LegacyPickles{std::move(object), std::move(keys)};
}

// One zip file is one archive: with a second one in it nobody could know which is meant. torch
// refuses both cases too.
Result<void> check_folder(std::span<const Record> records, std::string_view root) {
  for (const Record& r : records) {
    const std::string_view name = r.name;
    if (name.starts_with(root)) continue;
    if (name.substr(name.find('/') + 1) == "data.pkl")
      return unsupported(cat("expected one archive of torch.save, found two in one zip file, ",
                             in_quotes(cat(root, "data.pkl")), " and ", in_quotes(name),
                             ": save each as a file of its own"));
    return unsupported(cat("expected all records in the folder ", in_quotes(root), ", found ",
                           in_quotes(name), ": take it out of the zip file (zip -d)"));
  }
  return {};
}

}  // namespace

std::string_view what_it_is_instead(const Host& host, const Source& source) {
  std::array<char, 24> head;
  const size_t n = std::min<uint64_t>(source.size(host), head.size());
  if (!source.read(host, 0, std::as_writable_bytes(std::span(head).first(n)))) return {};
  return common::what_begins_with({head.data(), n});
}

bool looks_like_torch(const Host& host, const Source& source) {
  std::array<char, 2 + kLegacyMagic.size()> head;
  if (source.size(host) < head.size() ||
      !source.read(host, 0, std::as_writable_bytes(std::span(head))))
    return false;
  const std::string_view text(head.data(), head.size());
  return text.starts_with(kZipMagic) || (text[0] == '\x80' && text.substr(2) == kLegacyMagic);
}

Result<std::unique_ptr<TorchFile>> TorchFile::open(const Host& host, const Source& source,
                                                   bool verify_crc) {
  std::unique_ptr<TorchFile> out(new TorchFile(source));
  std::array<char, 512> bytes;
  const std::string_view head(bytes.data(), std::min<uint64_t>(bytes.size(), source.size(host)));
  XD_TRY(source.read(host, 0, std::as_writable_bytes(std::span(bytes)).first(head.size())));
  if (head.starts_with(kZipMagic)) {
    XD_TRY(out->open_zip(host, verify_crc, kMaxCommentBytes));
  } else if (head.size() > 2 && head[0] == '\x80' && head.substr(2).starts_with(kLegacyMagic)) {
    if (verify_crc)
      host.log(XD_LOG_WARN, "--verify-crc: files of torch before 1.6 have no CRCs to compare");
    XD_TRY(out->open_legacy(host));
  } else {
    return foreign(head, source.size(host));
  }
  return out;
}

Result<std::unique_ptr<TorchFile>> TorchFile::open_archive(const Host& host, const Source& source,
                                                           bool verify_crc) {
  std::unique_ptr<TorchFile> out(new TorchFile(source));
  XD_TRY(out->open_zip(host, verify_crc, 0));
  return out;
}

Result<void> TorchFile::open_zip(const Host& host, bool verify_crc, uint64_t max_comment_bytes) {
  XD_TRY_SET(records_, read_zip_directory(host, source_, max_comment_bytes));
  // torch finds its archive by the first record's folder, whatever that is called.
  const std::string root =
      records_.empty() ? "" : records_[0].name.substr(0, records_[0].name.find('/') + 1);
  const auto find = [&](std::string_view name) -> const Record* {
    const auto it = std::find_if(records_.begin(), records_.end(), [&](const Record& r) {
      return r.name.size() == root.size() + name.size() && r.name.starts_with(root) &&
             r.name.ends_with(name);
    });
    return it == records_.end() ? nullptr : &*it;
  };
  if (find("constants.pkl"))
    return unsupported(
        "expected a state dict, found a TorchScript module: load it with torch.jit.load and save "
        "its "
        "state_dict()");
  const Record* pickle = find("data.pkl");
  if (!pickle)
    return unsupported("expected a file of torch.save, found a zip file without data.pkl");
  XD_TRY(check_folder(records_, root));
  root_ = root.substr(0, root.find('/'));
  if (pickle->n_bytes > kMaxPickleBytes || pickle->n_bytes == 0)
    return unsupported(
        cat("expected a data.pkl of at most ", kMaxPickleBytes, " bytes, found ", pickle->n_bytes));
  if (const Record* order = find("byteorder")) {
    std::string text(std::min(order->n_bytes, kMaxByteorder), '\0');
    XD_TRY(reader_.read(host, *order, 0, std::as_writable_bytes(std::span(text))));
    big_endian_ = text == "big";
    if (!big_endian_ && text != "little")
      return corrupt(cat("expected byteorder little or big, found ", in_quotes(text)));
  }
  if (verify_crc) {
    for (const Record& r : records_) {
      XD_TRY_SET(const uint32_t crc, crc_of(host, reader_, r));
      if (crc != r.crc)
        return corrupt(cat("expected record ", in_quotes(r.name),
                           " to have the CRC that the zip directory says, found another: "
                           "its bytes are damaged, or were saved with set_crc32_options(False)"));
    }
  }
  XD_TRY_SET(Buffer bytes, Buffer::make(host, pickle->n_bytes));
  bytes_.emplace(std::move(bytes));
  XD_TRY(reader_.read(host, *pickle, 0, bytes_->span()));
  auto parsed = read_pickle(as_text(bytes_->span()));
  if (!parsed) return in_pickle("data.pkl", std::move(parsed).error());
  if (parsed->end() != pickle->n_bytes)
    return corrupt(cat("data.pkl: expected its end at byte ", parsed->end(), ", found ",
                       pickle->n_bytes - parsed->end(), " bytes more"));
  pickle_.emplace(*std::move(parsed));

  const std::string prefix = root + "data/";
  key_at_ = prefix.size();
  for (uint32_t i = 0; i < records_.size(); ++i) {
    if (records_[i].name.starts_with(prefix)) by_key_.push_back(i);
  }
  std::sort(by_key_.begin(), by_key_.end(),
            [this](uint32_t a, uint32_t b) { return records_[a].name < records_[b].name; });
  return {};
}

Result<void> TorchFile::open_legacy(const Host& host) {
  const uint64_t size = source_.size(host);
  for (uint64_t n = std::min(size, kFirstLegacyBytes);;
       n = std::min({size, 4 * n, kMaxPickleBytes})) {
    bytes_.reset();
    XD_TRY_SET(Buffer bytes, Buffer::make(host, n));
    bytes_.emplace(std::move(bytes));
    XD_TRY(source_.read(host, 0, bytes_->span()));
    auto parsed = parse_legacy(as_text(bytes_->span()));
    if (parsed) {
      pickle_.emplace(std::move(parsed->object));
      return read_legacy_storages(host, parsed->keys);
    }
    const bool want_more = parsed.error().code == XD_OUT_OF_RANGE && n < size;
    if (!want_more) return in_pickle("the pickles in front", std::move(parsed).error());
    if (n == kMaxPickleBytes)
      return unsupported(
          cat("expected pickles of at most ", kMaxPickleBytes, " bytes in front, found more"));
  }
}

// Behind the pickles, for each key in turn: the number of elements, and the elements.
Result<void> TorchFile::read_legacy_storages(const Host& host, const Pickle& keys) {
  if (keys.root().kind != Kind::kList)
    return corrupt(cat("expected a list of storages, found ", name_of(keys.root().kind)));
  std::map<std::string_view, const Storage*> known;
  for (size_t i = 0; i < pickle_->n_storages(); ++i)
    known.emplace(pickle_->storage(i).key, &pickle_->storage(i));
  const uint64_t size = source_.size(host);
  uint64_t at = keys.end();
  for (const Value& value : keys.items(keys.root())) {
    if (value.kind != Kind::kText)
      return corrupt(cat("expected a storage's key, found ", name_of(value.kind)));
    const std::string_view key = keys.text(value);
    const auto it = known.find(key);
    if (it == known.end())
      return corrupt(
          cat("expected storages that the pickle uses, each once, found ", in_quotes(key)));
    const Storage& s = *it->second;
    known.erase(it);
    uint64_t n_elems = 0;
    if (size - at < sizeof n_elems)
      return corrupt(
          cat("expected storage ", in_quotes(key), ", found the end of the file: it is cut off"));
    XD_TRY(source_.read(host, at, std::as_writable_bytes(std::span(&n_elems, 1))));
    at += sizeof n_elems;
    if (n_elems != s.n_elems)
      return corrupt(cat("expected ", s.n_elems, " elements in storage ", in_quotes(key),
                         ", found ", n_elems));
    if (s.n_bytes() > size - at)
      return corrupt(cat("expected ", s.n_bytes(), " bytes of storage ", in_quotes(key), ", found ",
                         size - at, ": the file is cut off"));
    by_key_.push_back(static_cast<uint32_t>(records_.size()));
    records_.push_back({std::string(key), at, s.n_bytes(), s.n_bytes(), 0, false});
    at += s.n_bytes();
  }
  if (at != size)
    host.log(XD_LOG_WARN, cat("found ", size - at,
                              " bytes behind the last storage, which are not read: torch.load "
                              "reads the first object of a file only"));
  std::sort(by_key_.begin(), by_key_.end(),
            [this](uint32_t a, uint32_t b) { return records_[a].name < records_[b].name; });
  return {};
}

Result<uint32_t> TorchFile::find_storage(const Storage& storage) const {
  const auto key_of = [this](uint32_t i) {
    return std::string_view(records_[i].name).substr(key_at_);
  };
  const auto it =
      std::lower_bound(by_key_.begin(), by_key_.end(), storage.key,
                       [&](uint32_t i, std::string_view key) { return key_of(i) < key; });
  if (it == by_key_.end() || key_of(*it) != storage.key)
    return corrupt(
        cat("expected the bytes of storage ", in_quotes(storage.key), " in the file, found none"));
  if (records_[*it].n_bytes != storage.n_bytes())
    return corrupt(cat("expected ", storage.n_bytes(), " bytes in storage ", in_quotes(storage.key),
                       ", found ", records_[*it].n_bytes));
  return *it;
}

void TorchFile::drop_pickle() {
  pickle_.reset();
  bytes_.reset();
}

}  // namespace crossdock::torch_read
