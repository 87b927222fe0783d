// SPDX-License-Identifier: Apache-2.0

// What the core's tests share: temporary folders, and text to look into.
#pragma once

#include <crossdock/manifest_wire.hpp>
#include <crossdock/result.hpp>

#include <algorithm>
#include <boost/filesystem.hpp>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "core/io/tree_digest.h"
#include "core/report/report.h"
#include "tests/catch.h"

namespace crossdock::test {

namespace fs = boost::filesystem;

// An empty folder for the length of a test, with all links in its own path resolved.
class TempDir {
 public:
  TempDir()
      : path_(fs::canonical(fs::temp_directory_path()) /
              fs::unique_path("crossdock-test-%%%%%%%%")) {
    fs::create_directory(path_);
  }
  ~TempDir() {
    boost::system::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  const fs::path& path() const { return path_; }
  fs::path operator/(const std::string& name) const { return path_ / name; }

 private:
  fs::path path_;
};

// Makes the folders above it too.
inline fs::path put(const fs::path& path, const std::string& text = "x") {
  fs::create_directories(path.parent_path());
  std::ofstream out(path.string(), std::ios::binary | std::ios::trunc);
  out << text;
  out.close();
  REQUIRE(out);
  return path;
}

inline std::string get(const fs::path& path) {
  std::ifstream in(path.string(), std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// A report as a conversion writes it, of which only the files matter.
inline std::string report_of(std::initializer_list<const char*> files) {
  report::Report out;
  for (const char* file : files) out.files.push_back({file, 1, "tree:0"});
  return report::to_json(out);
}

// Every file, link and folder under `folder`, by relative name, with the files' bytes; empty when
// there is no folder.
inline std::map<std::string, std::string> tree(const fs::path& folder) {
  std::map<std::string, std::string> out;
  boost::system::error_code ec;
  for (fs::recursive_directory_iterator it(folder, ec), end; !ec && it != end; it.increment(ec)) {
    const bool is_file = fs::is_regular_file(it->symlink_status());
    out[it->path().lexically_relative(folder).string()] = is_file ? get(it->path()) : "";
  }
  return out;
}

// Names in one folder, sorted.
inline std::vector<std::string> names(const fs::path& folder) {
  std::vector<std::string> out;
  for (fs::directory_iterator it(folder), end; it != end; ++it)
    out.push_back(it->path().filename().string());
  std::sort(out.begin(), out.end());
  return out;
}

// The message of a failure; fails the test when there is none.
template <class T>
std::string message(const Result<T>& result) {
  REQUIRE_FALSE(result.has_value());
  return result.error().message;
}

using io::tree_digest_of;

inline bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

inline manifest::Tensor tensor(const std::string& name, manifest::DType dtype,
                               std::vector<uint64_t> shape) {
  manifest::Tensor out;
  out.name = name;
  out.dtype = dtype;
  out.shape = std::move(shape);
  return out;
}

}  // namespace crossdock::test
