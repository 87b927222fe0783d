// SPDX-License-Identifier: Apache-2.0

// Pickles, zip files and torch files as short texts: the inputs of this folder's tests and the
// seeds of its fuzzers.
#pragma once

#include <crossdock/bytes.hpp>
#include <crossdock/result.hpp>

#include <zlib.h>

#include <initializer_list>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "plugins/common/crc32.h"

namespace crossdock::torch_read::recipe {

using namespace std::string_literals;

// ---- pickles: each function gives the opcodes that leave one value on the stack
inline std::string text(std::string_view s) {
  std::string out = "X";
  put_le(out, static_cast<uint32_t>(s.size()));
  return out.append(s);
}
inline std::string number(int64_t n) {
  std::string out;
  if (n >= 0 && n < 256) return out + 'K' + static_cast<char>(n);
  if (n == static_cast<int32_t>(n)) {
    out = "J";
    put_le(out, static_cast<int32_t>(n));
    return out;
  }
  out = "\x8a\x08";
  put_le(out, n);
  return out;
}
inline std::string real(double value) {
  std::string out = "G";
  put_le(out, __builtin_bswap64(std::bit_cast<uint64_t>(value)));
  return out;
}
inline std::string global(std::string_view module, std::string_view name) {
  return cat("c", module, "\n", name, "\n");
}
inline std::string joined(std::initializer_list<std::string> parts) {
  std::string out;
  for (const std::string& part : parts) out += part;
  return out;
}
inline std::string tuple(std::initializer_list<std::string> values) {
  return "(" + joined(values) + "t";
}
inline std::string list(std::initializer_list<std::string> values) {
  return "](" + joined(values) + "e";
}
inline std::string dict(std::initializer_list<std::string> keys_and_values) {
  return keys_and_values.size() == 0 ? "}" : "}(" + joined(keys_and_values) + "u";
}
inline std::string ordered_dict(std::initializer_list<std::string> keys_and_values) {
  return global("collections", "OrderedDict") + ")R(" + joined(keys_and_values) + "u";
}
inline std::string call(const std::string& function, std::initializer_list<std::string> args) {
  return function + tuple(args) + "R";
}
inline std::string numbers(std::initializer_list<int64_t> values) {
  std::string out = "(";
  for (const int64_t n : values) out += number(n);
  return out + "t";
}
inline std::string storage(std::string_view key, int64_t n, std::string_view type = "FloatStorage",
                           std::string_view module = "torch") {
  return tuple({text("storage"), global(module, type), text(key), text("cpu"), number(n)}) + "Q";
}
inline std::string tensor(const std::string& storage, int64_t offset,
                          std::initializer_list<int64_t> shape,
                          std::initializer_list<int64_t> strides) {
  return call(
      global("torch._utils", "_rebuild_tensor_v2"),
      {storage, number(offset), numbers(shape), numbers(strides), "\x89", ordered_dict({})});
}
inline std::string pickle(const std::string& value) { return "\x80\x02" + value + "."; }

// ---- zip files, of records that may lie
struct ZipRecord {
  std::string name, data;
  bool deflate = false;
  std::string local_name = {};  // another than the directory's
  uint16_t flags = 0, local_flags = 0, method = 0;
  uint32_t crc_error = 0;
  int64_t size_error = 0, stored_error = 0, local_size_error = 0, offset_error = 0;
};

inline std::string deflated(std::string_view data) {
  std::string out(data.size() + data.size() / 10 + 64, '\0');
  z_stream s{};
  deflateInit2(&s, 9, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY);
  s.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(data.data()));
  s.avail_in = static_cast<uInt>(data.size());
  s.next_out = reinterpret_cast<Bytef*>(out.data());
  s.avail_out = static_cast<uInt>(out.size());
  if (deflate(&s, Z_FINISH) != Z_STREAM_END) throw std::runtime_error("deflate");
  out.resize(s.total_out);
  deflateEnd(&s);
  return out;
}

inline std::string end_record(uint64_t n_records, uint64_t size, uint64_t offset,
                              std::string_view comment = "") {
  std::string out = "PK\5\6\0\0\0\0"s;
  put_le(out, static_cast<uint16_t>(n_records));
  put_le(out, static_cast<uint16_t>(n_records));
  put_le(out, static_cast<uint32_t>(size));
  put_le(out, static_cast<uint32_t>(offset));
  put_le(out, static_cast<uint16_t>(comment.size()));
  return out.append(comment);
}

inline std::string zip(const std::vector<ZipRecord>& records, std::string_view comment = "") {
  std::string out, directory;
  for (const ZipRecord& r : records) {
    const std::string stored = r.deflate ? deflated(r.data) : r.data;
    const uint16_t method = r.method ? r.method : r.deflate ? 8 : 0;
    const auto fields = [&](std::string& to, uint16_t flags, int64_t error) {
      put_le(to, flags);
      put_le(to, method);
      put_le(to, uint32_t{0});
      put_le(to, common::crc32(as_bytes(r.data)) + r.crc_error);
      put_le(to,
             static_cast<uint32_t>(static_cast<int64_t>(stored.size()) + r.stored_error + error));
      put_le(to, static_cast<uint32_t>(static_cast<int64_t>(r.data.size()) + r.size_error + error));
    };
    const uint64_t header = out.size();
    const std::string local_name = r.local_name.empty() ? r.name : r.local_name;
    out += "PK\3\4\x14\0"s;
    fields(out, r.local_flags, r.local_size_error);
    put_le(out, static_cast<uint16_t>(local_name.size()));
    put_le(out, uint16_t{0});
    out += local_name + stored;
    directory += "PK\1\2\x14\0\x14\0"s;
    fields(directory, r.flags, 0);
    put_le(directory, static_cast<uint16_t>(r.name.size()));
    directory.append(12, '\0');
    put_le(directory, static_cast<uint32_t>(static_cast<int64_t>(header) + r.offset_error));
    directory += r.name;
  }
  const uint64_t offset = out.size();
  return out + directory + end_record(records.size(), directory.size(), offset, comment);
}

// ---- whole files
struct Stored {
  std::string key, data;
};
inline std::string torch_zip(const std::string& value, const std::vector<Stored>& storages,
                             bool deflate = false, std::string_view byteorder = "little",
                             const std::string& root = "archive") {
  std::vector<ZipRecord> records{{root + "/data.pkl", pickle(value), deflate}};
  if (!byteorder.empty()) records.push_back({root + "/byteorder", std::string(byteorder)});
  for (const Stored& s : storages) records.push_back({root + "/data/" + s.key, s.data, deflate});
  records.push_back({root + "/version", "3\n"});
  return zip(records);
}

// `elem_bytes`: of every storage.
inline std::string legacy_file(const std::string& value, const std::vector<Stored>& storages,
                               size_t elem_bytes = 4) {
  std::string out = "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."s +
                    pickle("M\xe9\x03") + pickle(dict({text("little_endian"), "\x88"})) +
                    pickle(value) + "\x80\x02](";
  for (const Stored& s : storages) out += text(s.key);
  out += "e.";
  for (const Stored& s : storages) {
    put_le(out, uint64_t{s.data.size() / elem_bytes});
    out += s.data;
  }
  return out;
}

}  // namespace crossdock::torch_read::recipe
