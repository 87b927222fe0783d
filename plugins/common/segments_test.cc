// SPDX-License-Identifier: Apache-2.0
#include "plugins/common/segments.h"
#include "tests/catch.h"
#include <crossdock/testing/memory_host.h>

using namespace crossdock;
using common::Segments;

namespace {

struct Files {
  test::MemoryHost host;
  std::vector<Source> sources;
  Files() {
    host.inputs = {{"a", "0123456789"}, {"b", "abcdefghij"}};
    for (const char* name : {"a", "b"})
      sources.push_back(*Input(host.input()).open(host.api(), name));
  }
  std::string read(const Segments& s, uint64_t begin, uint64_t n_bytes) {
    std::string out(n_bytes, '?');
    const auto r = s.read(host.api(), sources, begin, std::as_writable_bytes(std::span(out)));
    return r ? out : host.text(r.error());
  }
};

}  // namespace

TEST_CASE("segments: every range of elements") {
  Files files;
  Segments s(2);
  s.add(0, 4, 2);
  s.add(1, 0, 1);
  s.add(1, 7, 0);  // a rank that holds none of it
  s.add(0, 0, 2);
  const std::string all = "4567ab0123";
  CHECK(s.n_elems() == 5);
  CHECK(s.n_segments() == 3);
  for (uint64_t begin = 0; begin <= 5; ++begin) {
    for (uint64_t end = begin; end <= 5; ++end) {
      CAPTURE(begin, end);
      CHECK(files.read(s, begin, (end - begin) * 2) == all.substr(begin * 2, (end - begin) * 2));
    }
  }
  CHECK(files.read(s, 4, 4) == "expected a range inside 5 elements, found 2 at 4");
  CHECK(files.read(s, 6, 0) == "expected a range inside 5 elements, found 0 at 6");
}

TEST_CASE("segments: what touches is one read and one extent") {
  Files files;
  Segments s(1);
  s.add(0, 2, 3);
  s.add(0, 5, 2);  // goes on
  s.add(1, 7, 1);  // where the one before ends, but in another file
  s.add(1, 9, 1);
  using manifest::Extent;
  CHECK(s.extents() == std::vector<Extent>{{0, 2, 5}, {1, 7, 1}, {1, 9, 1}});
  CHECK(files.read(s, 0, 7) == "23456hj");
  CHECK(files.host.reads == 3);
}

TEST_CASE("segments: none, and a file that is cut off") {
  Files files;
  CHECK(files.read(Segments(4), 0, 0).empty());
  CHECK(Segments(4).extents().empty());
  Segments s(1);
  s.add(0, 8, 2);
  s.add(1, 9, 2);
  CHECK(files.read(s, 0, 3) == "89j");
  CHECK(files.read(s, 0, 4) != "89j?");
  files.host.cancel = true;
  CHECK(files.read(s, 0, 3) == "cancelled");
}
