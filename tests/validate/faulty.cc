// SPDX-License-Identifier: Apache-2.0

// A reader and a writer that are right, but for the one fault that CROSSDOCK_TEST_FAULT names: what
// crossdock-validate, and the host, must find out. faults.txt lists all, with the case that does.
//
// Their format, "flt": "FLT1", the number of tensors (u64); of each the length of its name, the
// name and the number of elements (u64); the F32 values of all; and of each the sum of its bytes
// (u64).
#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cfenv>
#include <chrono>
#include <cstring>
#include <random>
#include <thread>

#include "tests/validate/faulty.h"

namespace faulty {

bool is(std::string_view fault) {
  static const char* const asked = std::getenv("CROSSDOCK_TEST_FAULT");
  return asked && fault == asked;
}

void do_io() { ::close(::open("/etc/hostname", O_RDONLY)); }
void hang() {
  for (;;) std::this_thread::sleep_for(std::chrono::seconds(1));
}
void crash() { *static_cast<volatile int*>(nullptr) = 1; }
uint64_t recurse(uint64_t n) {
  volatile char room[4096];
  room[n % sizeof room] = 1;
  return n + recurse(n + 1) + static_cast<uint64_t>(room[0]);
}
uint64_t random_number() {
  static std::random_device device;
  return device();
}

namespace {

// Runs when the library is loaded.
__attribute__((constructor)) void at_load() {
  if (is("load-thread")) std::thread(hang).detach();
  if (is("load-file")) (void)!::open("/etc/hostname", O_RDONLY);
  if (is("load-exit")) std::exit(0);
  if (is("load-rounding")) std::fesetround(FE_UPWARD);
  if (is("load-crash")) crash();
  if (is("load-hang")) hang();
}

constexpr const char* kFormats[] = {"flt", nullptr};
constexpr const char* kPatterns[] = {"*.flt", nullptr};

struct Plugins {
  xd_reader_api reader_table = reader_table_of();
  xd_writer_api writer_table = writer_table_of();
  xd_option_desc option{XD_INIT_SIZE(xd_option_desc), 0, "flag", "bool", "false", "a flag"};
  const xd_option_desc* options[2] = {&option, nullptr};
  std::vector<const char*> formats{"flt", nullptr};
  xd_plugin_desc reader = crossdock::reader_plugin<Reader>({.id = "org.example.reader.flt",
                                                            .version = "1.0.0",
                                                            .summary = "Reads flt",
                                                            .formats = kFormats,
                                                            .patterns = kPatterns});
  xd_plugin_desc writer = crossdock::writer_plugin<Writer>({.id = "org.example.writer.flt",
                                                            .version = "1.0.0",
                                                            .summary = "Writes flt",
                                                            .formats = kFormats});
  const xd_plugin_desc* list[3] = {&reader, &writer, nullptr};
  xd_library library{XD_INIT_SIZE(xd_library), 0, list};

  Plugins() {
    reader.reader = &reader_table;
    writer.writer = &writer_table;
    reader.options = options;
    if (is("id-null")) reader.id = nullptr;
    if (is("id-control")) reader.id = "org.example\x1b[2J";
    if (is("id-utf8")) reader.id = "org.example.\xff\xfe";
    if (is("id-long")) reader.id = long_text();
    if (is("id-twice")) reader.id = writer.id;
    if (is("version-null")) reader.version = nullptr;
    if (is("summary-newline")) reader.summary = "one\ntwo";
    if (is("formats-null")) reader.formats = nullptr;
    if (is("formats-endless")) {
      formats.assign(500, "flt");
      formats.push_back(nullptr);
      reader.formats = formats.data();
    }
    if (is("option-type")) option.type = "colour";
    if (is("option-name")) option.name = "Flag One";
    if (is("option-help")) option.help = "\x1b]0;title\x07";
    if (is("caps-unknown")) reader.caps |= uint64_t{1} << 40;
    if (is("table-short")) reader_table.struct_size = offsetof(xd_reader_api, read);
    if (is("table-null")) reader.reader = nullptr;
    if (is("function-null")) writer_table.seal = nullptr;
    if (is("kind-other")) reader.kind = XD_WRITER;
    if (is("desc-size")) reader.struct_size = 0;
    if (is("needs-minor")) library.needs_minor = 99;
    if (is("library-size")) library.struct_size = 2;
    if (is("library-empty")) library.plugins = &list[2];
  }
  static const char* long_text() {
    static const std::string text(100'000, 'x');
    return text.c_str();
  }
};

}  // namespace

}  // namespace faulty

extern "C" XD_EXPORT xd_status xd_plugin_v1(xd_call* call, const xd_library** out) {
  using namespace faulty;
  if (is("entry-io")) do_io();
  if (is("entry-thread")) std::thread([] {}).join();
  if (is("entry-throws")) throw 42;
  if (is("entry-hang")) hang();
  if (is("entry-exit")) std::exit(0);
  if (is("entry-memory")) (void)call->host->alloc(call, 100, 64);
  if (is("entry-status")) return XD_UNSUPPORTED_DATA;
  static Plugins* plugins = new Plugins();
  if (is("entry-other")) plugins = new Plugins();
  *out = is("entry-null") ? nullptr : &plugins->library;
  return XD_OK;
}
