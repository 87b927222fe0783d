// SPDX-License-Identifier: Apache-2.0

// Opens a checkpoint's files, one after the other: one file's pickle at a time is in memory.
#pragma once

#include "plugins/common/hf_folder.h"
#include "plugins/deepspeed/optimizer.h"
#include "plugins/deepspeed/rank_file.h"

#include <string>
#include <utility>
#include <vector>

namespace crossdock::deepspeed {

// A checkpoint's files. Stored.file is an index of both lists.
struct OpenFiles {
  std::vector<manifest::File> files;
  std::vector<Source> sources;
};

class Opener {
 public:
  // Borrows all. `verify_crc`: reads each file whole, and compares its records' CRCs.
  Opener(const Host& host, const Input& input, bool verify_crc, OpenFiles& out)
      : host_(host), input_(input), verify_crc_(verify_crc), out_(out) {}

  // read(const FileInput&) -> Result; its errors get the file's name.
  template <class Read>
  auto read(const std::string& name, Read&& read)
      -> decltype(read(std::declval<const FileInput&>())) {
    if (host_.cancelled()) return Error{XD_CANCELLED, "cancelled"};
    XD_TRY_SET(Source source, input_.open(host_, name));
    const auto number = static_cast<uint32_t>(out_.files.size());
    out_.files.push_back({name, source.size(host_), {}});
    out_.sources.push_back(source);
    auto torch = torch_read::TorchFile::open(host_, source, verify_crc_);
    if (!torch) return common::in_file(name, std::move(torch).error());
    if (auto is_own = check_own_name(name, (*torch)->root()); !is_own)
      return common::in_file(name, std::move(is_own).error());
    auto result = read(FileInput{host_, **torch, source, number});
    if (!result) return common::in_file(name, std::move(result).error());
    return result;
  }

 private:
  const Host& host_;
  const Input& input_;
  const bool verify_crc_;
  OpenFiles& out_;
};

}  // namespace crossdock::deepspeed
