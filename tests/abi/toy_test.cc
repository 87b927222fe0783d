// SPDX-License-Identifier: Apache-2.0

// The C plugin of examples/plugin_c against the host in memory: what plugin.h promises holds for
// plain C.
#include <crossdock/testing/memory_host.h>
#include "tests/catch.h"

using namespace crossdock;
using test::MemoryHost;

namespace {

const std::string kWeight("\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c", 12);  // BF16 2,3
const std::string kScale("\x00\x00\x80\x3f", 4);                                    // F32 scalar
const std::string kHeader =
    "xdtoy 1\n# made by hand\nh.0.weight BF16 2,3\nscale F32 -\nnone I64 0,5\ndata\n";
const std::string kSums = "000000000000004e\n00000000000000bf\n0000000000000000\n";
const std::string kFile = kHeader + kWeight + kScale + kSums;

const xd_plugin_desc& toy(MemoryHost& host, uint32_t kind) {
  const xd_library* library = nullptr;
  MemoryHost::Call call(host);
  REQUIRE(xd_plugin_v1(&call, &library) == XD_OK);
  REQUIRE(library->struct_size == sizeof(xd_library));
  for (const xd_plugin_desc* const* p = library->plugins; *p; ++p) {
    if ((*p)->kind == kind) return **p;
  }
  throw std::runtime_error("no such plugin");
}

manifest::Manifest model() {
  manifest::Manifest m;
  m.tensors.resize(4);
  m.tensors[0].name = "h.0.weight";
  m.tensors[0].dtype = manifest::DType::BF16;
  m.tensors[0].shape = {2, 3};
  m.tensors[1].name = "not wanted";
  m.tensors[1].dtype = manifest::DType::F4;
  m.tensors[1].excluded = "for the test";
  m.tensors[2].name = "other.name";
  m.tensors[2].target_name = "scale";
  m.tensors[2].dtype = manifest::DType::F32;
  m.tensors[3].name = "none";
  m.tensors[3].dtype = manifest::DType::I64;
  m.tensors[3].shape = {0, 5};
  return m;
}

void set_model(MemoryHost& host) { host.tensors = {kWeight, "", kScale, ""}; }

const test::OptionValues kComment{{"comment", "made by hand"}};

std::string reader_error(const std::string& file) {
  MemoryHost host;
  host.inputs["x.xdtoy"] = file;
  const auto reader = test::run_reader(host, toy(host, XD_READER));
  return reader ? "no error" : reader.error().message;
}

std::string writer_error(const manifest::Manifest& m) {
  MemoryHost host;
  set_model(host);
  const auto written = test::run_writer(host, toy(host, XD_WRITER), m);
  return written ? "no error" : written.error().message;
}

bool contains(const std::string& text, const std::string& part) {
  INFO(text);
  INFO(part);
  CHECK(text.find(part) != std::string::npos);
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("a C reader describes and reads its file") {
  MemoryHost host;
  host.inputs["readme.txt"] = "x";
  host.inputs["sub/model.xdtoy"] = kFile;
  const xd_plugin_desc& plugin = toy(host, XD_READER);
  CHECK(test::probe(host, plugin) == 100);
  const auto reader = test::run_reader(host, plugin);
  REQUIRE(reader.has_value());
  const manifest::Manifest& m = (*reader)->manifest;
  CHECK(m.schema_version == manifest::kSchemaVersion);
  CHECK(m.source.format == "toy");
  REQUIRE(m.source.files.size() == 1);
  CHECK(m.source.files[0] == manifest::File{"sub/model.xdtoy", kFile.size(), ""});
  REQUIRE(m.source.metadata.size() == 1);
  CHECK(*m.source.metadata[0].value.get<std::string>() == "made by hand");
  REQUIRE(m.tensors.size() == 3);
  CHECK(m.tensors[0].name == "h.0.weight");
  CHECK(m.tensors[0].dtype == manifest::DType::BF16);
  CHECK(m.tensors[0].shape == std::vector<uint64_t>{2, 3});
  CHECK(m.tensors[0].extents == std::vector<manifest::Extent>{{0, kHeader.size(), 12}});
  CHECK(m.tensors[1].shape.empty());
  CHECK(m.tensors[2].shape == std::vector<uint64_t>{0, 5});
  CHECK(*(*reader)->read(0) == kWeight);
  CHECK(*(*reader)->read(1) == kScale);
  CHECK((*reader)->read(2)->empty());
  CHECK(*(*reader)->read(dense_range(0, 4, 2), 4) == kWeight.substr(8));
  CHECK((*reader)->read(dense_range(0, 4, 3), 6).error().code == XD_OUT_OF_RANGE);
  CHECK((*reader)->read(dense_range(0, UINT64_MAX, 2), 4).error().code == XD_OUT_OF_RANGE);
  CHECK((*reader)->read(dense_range(9, 0, 1), 2).error().code == XD_OUT_OF_RANGE);
  CHECK((*reader)->read(dense_range(0, 0, 6), 11).error().code == XD_INVALID_ARGUMENT);
}

TEST_CASE("a C reader refuses bad files with the line and the reason") {
  CHECK(reader_error(kFile) == "no error");
  contains(reader_error(""), "line 1: expected the line \"data\"");
  contains(reader_error("xdtoy 2\ndata\n"), "line 1: expected \"xdtoy 1\"");
  contains(reader_error("xdtoy 1\na U8 3\n"), "line 3: expected the line \"data\"");
  contains(reader_error("xdtoy 1\na U8\ndata\n"), "line 2: expected NAME TYPE SHAPE");
  contains(reader_error("xdtoy 1\n U8 3\ndata\n"), "expected a name of 1 to 200 bytes");
  contains(reader_error("xdtoy 1\n" + std::string(201, 'n') + " U8 3\ndata\n"),
           "expected a name of 1 to 200 bytes");
  contains(reader_error("xdtoy 1\na F4 2\ndata\n"), "expected a type");
  for (const std::string shape : {"", "x", "-1", "1,", "1,,2", "1, 2", "99999999999999999999",
                                  "1,1,1,1,1,1,1,1,1", "4294967296,4294967296"}) {
    contains(reader_error("xdtoy 1\na U8 " + shape + "\ndata\n"), "line 2: expected a shape");
  }
  contains(reader_error("xdtoy 1\na F64 4611686018427387904\ndata\n"), "fewer than 2^64 bytes");
  contains(reader_error("xdtoy 1\na U8 9223372036854775808\nb U8 9223372036854775808\ndata\n"),
           "fewer than 2^64 bytes");
  contains(reader_error("xdtoy 1\na U8 18446744073709551\ndata\nabc"),
           "expected 18446744073709551 bytes of values by the header, found a file of");
  contains(reader_error(kFile + "x"), "found a file of");
  contains(reader_error(kFile.substr(0, kFile.size() - 1)), "found a file of");
}

TEST_CASE("a C reader takes only an input with one file of its kind") {
  MemoryHost host;
  const xd_plugin_desc& plugin = toy(host, XD_READER);
  CHECK(test::probe(host, plugin) == 0);
  host.inputs["a.xdtoy"] = "PK\3\4 other";
  CHECK(test::probe(host, plugin) == 0);
  host.inputs["a.xdtoy"] = "xdtoy";  // too short to look at
  CHECK(test::probe(host, plugin) == 0);
  host.inputs["a.xdtoy"] = kFile;
  CHECK(test::probe(host, plugin) == 100);
  host.inputs["b.xdtoy"] = kFile;
  CHECK(test::probe(host, plugin) == 0);
  contains(test::run_reader(host, plugin).error().message, "expected one .xdtoy file");
}

TEST_CASE("a C writer writes the file, whatever the pieces and threads") {
  for (const uint64_t piece : {4u, 8u, 1u << 20}) {
    for (const unsigned threads : {1u, 4u}) {
      INFO("piece " << piece << ", threads " << threads);
      MemoryHost host;
      set_model(host);
      host.piece = piece;
      host.threads = threads;
      const auto files = test::run_writer(host, toy(host, XD_WRITER), model(), kComment);
      REQUIRE(files.has_value());
      CHECK(files->at("model.xdtoy") == kFile);
      CHECK(host.peak_allocated <= std::max<uint64_t>(piece, 8) * threads);
    }
  }
}

TEST_CASE("a C writer passes auxiliary files on") {
  MemoryHost host;
  set_model(host);
  auto m = model();
  m.aux_files.push_back({manifest::AuxKind::kConfig, "config.json", manifest::Bytes{"{}"}});
  m.aux_files.push_back(
      {manifest::AuxKind::kTokenizer, "sub/tokenizer.json", manifest::Bytes{"[]"}});
  const auto files = test::run_writer(host, toy(host, XD_WRITER), m);
  REQUIRE(files.has_value());
  CHECK(files->at("config.json") == "{}");
  CHECK(files->at("sub/tokenizer.json") == "[]");
}

TEST_CASE("a C writer refuses what its format cannot hold") {
  CHECK(writer_error(model()) == "no error");
  auto m = model();
  m.tensors[0].dtype = manifest::DType::F8_E4M3;
  contains(writer_error(m), "h.0.weight: expected BOOL, U8");
  m = model();
  m.tensors[0].name = "two words";
  contains(writer_error(m), "expected a name of 1 to 200 bytes without blanks");
  m.tensors[0].name = std::string(201, 'n');
  contains(writer_error(m), "expected a name of 1 to 200 bytes without blanks");
  m = model();
  m.tensors[0].shape = {2, 3, 1, 1, 1, 1, 1, 1, 1};
  contains(writer_error(m), "at most 8 dimensions");
}

TEST_CASE("planning twice gives the same plan") {
  MemoryHost host;
  set_model(host);
  const xd_plugin_desc& plugin = toy(host, XD_WRITER);
  REQUIRE(test::run_plan(host, plugin, model(), kComment).has_value());
  const uint64_t size = host.plan.objects.at(0)->size;
  CHECK(size == kFile.size());
  CHECK(host.plan.objects[0]->items.size() == 3);
}

TEST_CASE("a C writer and reader pass every failure of the host on, and keep nothing") {
  for (const uint32_t kind : {XD_READER, XD_WRITER}) {
    uint64_t calls = 1;
    for (uint64_t n = 1; n <= calls; ++n) {
      MemoryHost host;
      set_model(host);
      host.inputs["x.xdtoy"] = kFile;
      host.fail_at = n;
      INFO("call " << n << " of " << calls);
      const xd_plugin_desc& plugin = toy(host, kind);
      bool failed = false;
      if (kind == XD_READER) {
        failed = !test::run_reader(host, plugin);
      } else {
        failed = !test::run_writer(host, plugin, model(), kComment);
      }
      CHECK(failed);
      if (n == 1) {
        MemoryHost good;
        set_model(good);
        good.inputs["x.xdtoy"] = kFile;
        if (kind == XD_READER) {
          REQUIRE(test::run_reader(good, toy(good, kind)).has_value());
        } else {
          REQUIRE(test::run_writer(good, toy(good, kind), model(), kComment).has_value());
        }
        calls = good.calls;
        CHECK(calls > 1);
      }
    }
  }
}

TEST_CASE("a C writer stops when the job is cancelled") {
  MemoryHost host;
  set_model(host);
  host.cancel = true;
  const auto files = test::run_writer(host, toy(host, XD_WRITER), model());
  REQUIRE_FALSE(files.has_value());
  CHECK(files.error().code == XD_CANCELLED);
}
