// SPDX-License-Identifier: Apache-2.0

// Plugins in C++ that throw wherever they can: the veneer turns it into an error, and the host goes
// on.
#include <crossdock/plugin.hpp>

#include <stdexcept>

namespace {

using namespace crossdock;

// A model of one tensor without a file behind it; each format name throws somewhere else.
class ThrowingReader : public Reader {
 public:
  static Result<std::unique_ptr<Reader>> open(const Host&, const Input&, const Options& options) {
    if (options.text("throw-in") == "open") throw std::runtime_error("boom in open");
    return std::unique_ptr<Reader>(new ThrowingReader(options.text("throw-in")));
  }
  static int probe(const Host&, const Input&) { throw std::runtime_error("boom in probe"); }

  Result<manifest::Manifest> manifest(const Host&) override {
    if (where_ == "manifest") throw std::length_error("boom in manifest");
    manifest::Manifest m;
    m.source.format = "throwing";
    m.source.files.push_back({"nowhere", 8, ""});
    m.tensors.resize(1);
    m.tensors[0].name = "w";
    m.tensors[0].dtype = manifest::DType::F32;
    m.tensors[0].shape = {2};
    m.tensors[0].extents.push_back({0, 0, 8});
    return m;
  }
  Result<void> read(const Host&, const xd_range&, std::span<std::byte> out) override {
    if (where_ == "read") throw std::runtime_error("boom in read");
    if (where_ == "read-memory") throw std::bad_alloc();
    std::fill(out.begin(), out.end(), std::byte{});
    return {};
  }

 private:
  explicit ThrowingReader(std::string where) : where_(std::move(where)) {}
  const std::string where_;
};

class ThrowingWriter : public Writer {
 public:
  static Result<std::unique_ptr<Writer>> open(const Host&, manifest::Manifest,
                                              const Options& options) {
    if (options.text("fail-in") == "open") throw std::runtime_error("boom in the writer's open");
    return std::unique_ptr<Writer>(new ThrowingWriter(options.text("fail-in")));
  }
  Result<void> plan(const Host&, Plan& out) override {
    if (where_ == "plan") throw std::runtime_error("boom in plan");
    XD_TRY_SET(const uint32_t object, out.object("w.raw", 8));
    const xd_range whole = dense_range(0, 0, 2);
    return out.item(object, {&whole, 1}, 8, 0);
  }
  Result<std::string> write_item(const Host& host, uint32_t, uint64_t, Object& out) override {
    if (where_ == "item") throw std::runtime_error("boom in write_item");
    std::byte data[8];
    XD_TRY(read_tensor(host, dense_range(0, 0, 2), data));
    XD_TRY(out.write(0, data));
    return std::string();
  }
  Result<void> seal(const Host&, uint32_t, Object&, std::span<const std::string_view>) override {
    if (where_ == "seal") throw 42;  // not even a std::exception
    return {};
  }
  Result<void> commit(const Host&) override {
    if (where_ == "commit") throw std::runtime_error("boom in commit");
    return {};
  }

 private:
  explicit ThrowingWriter(std::string where) : where_(std::move(where)) {}
  const std::string where_;
};

constexpr const char* kFormats[] = {"throwing", nullptr};
constexpr xd_option_desc kReaderWhere{XD_INIT_SIZE(xd_option_desc), 0, "throw-in", "string", "",
                                      "the call that throws"};
constexpr const xd_option_desc* kReaderOptions[] = {&kReaderWhere, nullptr};
constexpr xd_option_desc kWriterWhere{XD_INIT_SIZE(xd_option_desc), 0, "fail-in", "string", "",
                                      "the call that throws"};
constexpr const xd_option_desc* kWriterOptions[] = {&kWriterWhere, nullptr};

}  // namespace

XD_EXPORT_PLUGINS(reader_plugin<ThrowingReader>({.id = "org.example.reader.throwing",
                                                 .version = "1.0.0",
                                                 .summary = "Throws",
                                                 .formats = kFormats,
                                                 .options = kReaderOptions}),
                  writer_plugin<ThrowingWriter>({.id = "org.example.writer.throwing",
                                                 .version = "1.0.0",
                                                 .summary = "Throws",
                                                 .formats = kFormats,
                                                 .options = kWriterOptions}))
