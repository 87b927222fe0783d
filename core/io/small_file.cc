// SPDX-License-Identifier: Apache-2.0
#include "core/io/small_file.h"

#include <boost/filesystem/operations.hpp>

#include <fstream>

namespace crossdock::io {

namespace fs = boost::filesystem;

Result<std::string> read_small_file(const std::string& path, uint64_t most) {
  boost::system::error_code ec;
  if (!fs::is_regular_file(path, ec))
    return Error{XD_NOT_FOUND, "found no such file: check the path"};
  const uint64_t size = fs::file_size(path, ec);
  if (ec || size == 0) return Error{XD_NOT_FOUND, "found an empty file"};
  if (size > most) return invalid(cat("found a file of ", size, " bytes, more than ", most));
  std::string out(size, '\0');
  std::ifstream in(path, std::ios::binary);
  if (!in.read(out.data(), static_cast<std::streamsize>(size)))
    return Error{XD_IO, "found that it could not be read"};
  return out;
}

}  // namespace crossdock::io
