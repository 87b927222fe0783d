// SPDX-License-Identifier: Apache-2.0

// A reader and a writer that live in the test itself.
#pragma once

#include <crossdock/plugin.hpp>

#include <functional>

#include "core/convert/tensor_source.h"
#include "tests/unit/core_test_support.h"

namespace crossdock::test {

// A model whose values lie in one file, "values", one tensor after the other.
struct FakeModel {
  manifest::Manifest manifest;
  std::string values;

  FakeModel() {
    manifest.source.format = "fake";
    manifest.source.files.push_back({"values", 0, ""});
  }
  FakeModel& add(const std::string& name, manifest::DType dtype, std::vector<uint64_t> shape,
                 const std::string& bytes) {
    manifest.tensors.push_back(tensor(name, dtype, std::move(shape)));
    manifest.tensors.back().extents = {{0, values.size(), bytes.size()}};
    values += bytes;
    manifest.source.files[0].size = values.size();
    return *this;
  }
};

class FakeReader : public Reader {
 public:
  static inline manifest::Manifest model;  // what the next one says
  static inline int score = 100;

  explicit FakeReader(Source source) : source_(source) {}
  static int probe(const Host&, const Input&) { return score; }
  static Result<std::unique_ptr<Reader>> open(const Host& host, const Input& input,
                                              const Options&) {
    XD_TRY_SET(auto source, input.open(host, "values"));
    return std::unique_ptr<Reader>(std::make_unique<FakeReader>(source));
  }
  Result<manifest::Manifest> manifest(const Host&) override { return model; }
  Result<void> read(const Host& host, const xd_range& range, std::span<std::byte> out) override {
    const manifest::Tensor& t = model.tensors[range.tensor];
    return source_.read(host, t.extents[0].offset + range.begin * manifest::info(t.dtype).bits / 8,
                        out);
  }

 private:
  Source source_;
};

// Writes each tensor as F32 to "t/<name>", in two items, and behind them the items' results: "0"
// and "1".
class FakeWriter : public Writer {
 public:
  static inline std::function<Result<void>(const std::string& call)>
      hook;                              // before each call; may fail or throw
  static inline manifest::Manifest got;  // what the last one got

  explicit FakeWriter(manifest::Manifest m) : m_(std::move(m)) { got = m_; }
  static Result<void> called(const std::string& call) { return hook ? hook(call) : Result<void>(); }
  static Result<std::unique_ptr<Writer>> open(const Host&, manifest::Manifest m, const Options&) {
    XD_TRY(called("open"));
    return std::unique_ptr<Writer>(std::make_unique<FakeWriter>(std::move(m)));
  }
  Result<void> plan(const Host&, Plan& out) override {
    XD_TRY(called("plan"));
    for (uint64_t i = 0; i < m_.tensors.size(); ++i) {
      const auto& t = m_.tensors[i];
      if (!t.excluded.empty()) continue;
      if (t.role != manifest::Role::kParameter) {
        XD_TRY(out.exclude(i, "not a parameter"));
        continue;
      }
      const uint64_t n = *checked_product(t.shape);
      XD_TRY_SET(const uint32_t object, out.object("t/" + t.target(), 4 * n + 2));
      for (const auto& [begin, count] :
           {std::pair{uint64_t{0}, n / 2}, std::pair{n / 2, n - n / 2}}) {
        items_.push_back(dense_range(i, begin, count, manifest::DType::F32));
        XD_TRY(out.item(object, {&items_.back(), 1}, 4 * count, 4 * count));
      }
    }
    for (uint64_t i = 0; i < m_.aux_files.size(); ++i) XD_TRY(out.aux(m_.aux_files[i].name, i));
    return out.note("a note of the writer");
  }
  Result<std::string> write_item(const Host& host, uint32_t object, uint64_t item,
                                 Object& out) override {
    XD_TRY(called("write_item"));
    const xd_range& range = items_[2 * object + item];
    XD_TRY_SET(const auto buffer, Buffer::make(host, 4 * range.count));
    XD_TRY(read_tensor(host, range, buffer.span()));
    XD_TRY(out.write(4 * range.begin, buffer.span()));
    return std::to_string(item);
  }
  Result<void> seal(const Host&, uint32_t object, Object& out,
                    std::span<const std::string_view> results) override {
    XD_TRY(called("seal"));
    const xd_range& last = items_[2 * object + 1];
    return out.write(4 * (last.begin + last.count), as_bytes(cat(results[0], results[1])));
  }
  Result<void> commit(const Host&) override { return called("commit"); }

 private:
  manifest::Manifest m_;
  std::vector<xd_range> items_;
};

inline constexpr const char* kFakeFormats[] = {"fake", "fake/1", nullptr};
inline constexpr const xd_option_desc* kNoOptions[] = {nullptr};
inline constexpr xd_plugin_desc kFakeReader =
    reader_plugin<FakeReader>({.id = "org.example.reader.fake",
                               .version = "1.2.3",
                               .summary = "a reader for tests",
                               .formats = kFakeFormats,
                               .options = kNoOptions});
inline constexpr xd_plugin_desc kFakeWriter =
    writer_plugin<FakeWriter>({.id = "org.example.writer.fake",
                               .version = "1.2.3",
                               .summary = "a writer for tests",
                               .formats = kFakeFormats,
                               .options = kNoOptions});

// Counts the reads.
struct CountingOs : io::Os {
  std::atomic<int> reads{0};
  ssize_t pread(int fd, void* dst, size_t n, uint64_t offset) override {
    ++reads;
    return Os::pread(fd, dst, n, offset);
  }
};

// A fake model, opened from a folder of its own.
class OpenFake {
 public:
  explicit OpenFake(const FakeModel& fake, uint64_t memory = 64 << 20)
      : memory_(memory), host_(os, memory_, cancelled_) {
    put(dir / "values", fake.values);
    FakeReader::model = fake.manifest;
    registry_.add("in this test", &kFakeReader);
    auto opened = convert::OpenModel::open(host_, registry_, *io::open_input(dir.path().string()),
                                           "auto", {});
    INFO((opened ? "" : opened.error().message));
    REQUIRE(opened);
    model_ = *std::move(opened);
    auto described = model_->describe();
    INFO((described ? "" : described.error().message));
    REQUIRE(described);
    source_ = std::make_unique<convert::TensorSource>(*model_, *std::move(described));
  }
  convert::TensorSource& model() { return *source_; }
  convert::OpenModel& opened() { return *model_; }
  plugin::Host& host() { return host_; }

  TempDir dir;
  CountingOs os;

 private:
  std::atomic<bool> cancelled_{false};
  base::Memory memory_;
  plugin::Host host_;
  plugin::Registry registry_;
  std::unique_ptr<convert::OpenModel> model_;
  std::unique_ptr<convert::TensorSource> source_;
};

}  // namespace crossdock::test
