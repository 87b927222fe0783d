// SPDX-License-Identifier: Apache-2.0

// faulty.cc tells what this is.
#pragma once

#include <crossdock/bytes.hpp>
#include <crossdock/dtype.hpp>
#include <crossdock/plugin.hpp>

#include <cstring>
#include <string_view>

namespace faulty {

using namespace crossdock;

bool is(std::string_view fault);  // whether it is the one that is asked for
void do_io();
[[noreturn]] void hang();
void crash();
uint64_t recurse(uint64_t n);
uint64_t random_number();

class Reader : public crossdock::Reader {
 public:
  static int probe(const Host& host, const Input& input);
  static Result<std::unique_ptr<crossdock::Reader>> open(const Host& host, const Input& input,
                                                         const Options&);
  struct Stored {
    std::string name;
    uint64_t n_elems, offset;
  };
  Reader(Source source, std::string name, std::vector<Stored> tensors)
      : source_(source), name_(std::move(name)), tensors_(std::move(tensors)) {}
  Result<manifest::Manifest> manifest(const Host& host) override;
  Result<void> read(const Host& host, const xd_range& range, std::span<std::byte> out) override;

 private:
  const Source source_;
  const std::string name_;
  const std::vector<Stored> tensors_;
};

class Writer : public crossdock::Writer {
 public:
  static Result<std::unique_ptr<crossdock::Writer>> open(const Host& host, manifest::Manifest m,
                                                         const Options&);
  explicit Writer(manifest::Manifest m) : model_(std::move(m)) {}
  Result<void> plan(const Host& host, Plan& out) override;
  Result<std::string> write_item(const Host& host, uint32_t object, uint64_t item,
                                 Object& out) override;
  Result<void> seal(const Host& host, uint32_t object, Object& out,
                    std::span<const std::string_view> results) override;
  Result<void> commit(const Host& host) override;

 private:
  Result<void> write_tensor(const Host& host, Object& out, uint64_t which, uint64_t& sum);
  std::string head_;
  manifest::Manifest model_;
  std::vector<uint64_t> tensors_;  // those that are F32 parameters of one dimension or more
  std::vector<uint64_t> begins_;   // where each lies in the file
};

// Right, but for the faults that lie in the tables.
xd_reader_api reader_table_of();
xd_writer_api writer_table_of();

}  // namespace faulty
