// SPDX-License-Identifier: Apache-2.0
#include "apps/validate/cases.h"
#include "apps/validate/child.h"
#include "core/model/check.h"

#include <algorithm>
#include <numeric>
#include <random>
#include <set>
#include <thread>

namespace crossdock::validate {

namespace {

using test::MemoryHost;
using Values = std::vector<std::string>;  // of each tensor, dense

constexpr uint64_t kPiece = 64 << 10;

// A reader plugin and an input, in a child.
class Reading {
 public:
  static Result<Reading> start(const Job& job, const std::string& id) {
    static std::optional<plugin::Registry> registry;  // outlives what the child does
    XD_TRY_SET(auto loaded, load(job));
    registry = std::move(loaded);
    XD_TRY_SET(const xd_plugin_desc* desc, find(*registry, id));
    return Reading(*desc, options_of(job, *desc));
  }
  const xd_plugin_desc& desc() const { return desc_; }

  Result<std::unique_ptr<test::OpenReader>> open(MemoryHost& host) const {
    host.piece = kPiece;
    return test::run_reader(host, desc_, options_);
  }
  // All that a conversion would read of it.
  Result<Values> read_all(MemoryHost& host, std::string* manifest = nullptr) const {
    XD_TRY_SET(const auto reader, open(host));
    if (manifest) *manifest = reader->manifest_bytes;
    Values out;
    for (uint64_t i = 0; i < reader->manifest.tensors.size(); ++i) {
      XD_TRY_SET(out.emplace_back(), reader->read(i));
    }
    return out;
  }

 private:
  Reading(const xd_plugin_desc& desc, test::OptionValues options)
      : desc_(desc), options_(std::move(options)) {}
  const xd_plugin_desc& desc_;
  test::OptionValues options_;
};

// A checked manifest, or what the host would say of it.
Result<void> check_model(const MemoryHost& host, const manifest::Manifest& m) {
  XD_TRY(model::check(m));
  XD_TRY(model::check_aliases(m));
  std::set<std::string> seen;
  for (const manifest::File& file : m.source.files) {
    const auto it = host.inputs.find(file.name);
    if (it == host.inputs.end())
      return invalid(cat("expected source.files of the input, found ", file.name));
    if (it->second.size() != file.size)
      return invalid(cat("expected ", it->second.size(), " bytes of ", file.name,
                         " in source.files, found ", file.size));
    if (!seen.insert(file.name).second)
      return invalid(cat("expected each file once in source.files, found ", file.name, " twice"));
  }
  if (m.tensors.empty()) return invalid("it found no tensors in an input of the corpus");
  for (const manifest::Tensor& t : m.tensors) {
    if (!t.expression.empty()) return invalid(cat("tensor ", t.name, " has an expression"));
  }
  return {};
}

Result<std::string> manifest_is_right(const Reading& reading, const Sample& sample) {
  MemoryHost host, again;
  set(host, sample);
  set(again, sample);
  now_at("open");
  XD_TRY_SET(const auto first, reading.open(host));
  XD_TRY(check_model(host, first->manifest));
  XD_TRY_SET(const auto second, reading.open(again));
  if (first->manifest_bytes != second->manifest_bytes)
    return invalid("a second reader of the same input gave another manifest");
  return cat(first->manifest.tensors.size(), " tensors");
}

// What a tensor's read() counts: its elements, or with strides those of its storage.
uint64_t stored_elements(const manifest::Tensor& t) {
  return t.strides.empty() ? checked_product(t.shape).value_or(0) : t.storage_elements;
}

Result<std::string> ranges_are_right(const Reading& reading, const Sample& sample, const Job& job) {
  MemoryHost host;
  set(host, sample);
  XD_TRY_SET(const auto reader, reading.open(host));
  std::mt19937_64 random(job.seed);
  uint64_t n_ranges = 0;
  for (uint64_t i = 0; i < reader->manifest.tensors.size(); ++i) {
    const manifest::Tensor& t = reader->manifest.tensors[i];
    now_at(cat("read of ", t.name));
    const uint64_t n = stored_elements(t), bits = manifest::info(t.dtype).bits;
    const uint64_t unit = bits % 8 == 0 ? 1 : 8 / std::gcd(bits, uint64_t{8});  // whole bytes
    XD_TRY_SET(const std::string whole,
               reader->read(dense_range(i, 0, n), manifest::dense_bytes(t.dtype, n).value_or(0)));
    for (int k = 0; k < 12 && n >= unit; ++k) {
      const uint64_t units = n / unit;
      uint64_t begin = random() % units, count = 1 + random() % (units - begin);
      if (k == 0) begin = 0, count = 1;
      if (k == 1) begin = units - 1, count = 1;
      const uint64_t bytes = count * unit * bits / 8;
      XD_TRY_SET(const std::string part,
                 reader->read(dense_range(i, begin * unit, count * unit), bytes));
      if (part != whole.substr(begin * unit * bits / 8, bytes))
        return invalid(cat("tensor ", t.name, ": elements ", begin * unit, " + ", count * unit,
                           " are not those of a read of all"));
      ++n_ranges;
    }
    XD_TRY_SET(const std::string none, reader->read(dense_range(i, n, 0), 0));
  }
  return cat(n_ranges, " ranges");
}

// Requests that the host never makes, but a plugin must outlive: refused, with a message.
Result<std::string> bad_ranges_are_refused(const Reading& reading, const Sample& sample) {
  MemoryHost host;
  set(host, sample);
  XD_TRY_SET(const auto reader, reading.open(host));
  const manifest::Manifest& m = reader->manifest;
  const auto refuses = [&](const xd_range& range, uint64_t bytes,
                           const char* what) -> Result<void> {
    now_at(cat("read of ", what));
    if (reader->read(range, bytes)) return invalid(cat("it gave values for ", what));
    return {};
  };
  XD_TRY(refuses(dense_range(m.tensors.size(), 0, 1), 4, "a tensor that does not exist"));
  for (uint64_t i = 0; i < m.tensors.size(); ++i) {
    const uint64_t n = stored_elements(m.tensors[i]),
                   bits = manifest::info(m.tensors[i].dtype).bits;
    if (n == 0 || bits % 8 != 0) continue;
    XD_TRY(refuses(dense_range(i, n, 1), bits / 8, "an element behind the end"));
    XD_TRY(refuses(dense_range(i, 1, UINT64_MAX), bits / 8, "a range that overflows"));
    XD_TRY(refuses(dense_range(i, 0, 1), bits / 8 + 1, "a buffer of another size"));
    return std::string();
  }
  return skip("no tensor of whole bytes");
}

Result<std::string> threads_agree(const Reading& reading, const Sample& sample) {
  if (!(reading.desc().caps & XD_CAP_CONCURRENT)) return skip("it says that it is not concurrent");
  MemoryHost host;
  set(host, sample);
  XD_TRY_SET(const Values wanted, reading.read_all(host));
  XD_TRY_SET(const auto reader, reading.open(host));
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  now_at("read by four threads");
  for (unsigned t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (uint64_t k = 0; k < 2 * wanted.size(); ++k) {
        const uint64_t i = (k + t * wanted.size() / 4) % wanted.size();
        const auto got = reader->read(i);
        wrong += !got || *got != wanted[i];
      }
    });
  }
  for (auto& t : threads) t.join();
  if (wrong > 0) return invalid("values that four threads read at once differ from those of one");
  return std::string();
}

// Each call of the host that can fail does, one after the other.
Result<std::string> faults_are_told(const Reading& reading, const Sample& sample, const Job& job) {
  MemoryHost good;
  set(good, sample);
  XD_TRY(reading.read_all(good));
  const uint64_t step = std::max<uint64_t>(1, good.calls / job.samples);
  for (uint64_t n = 1; n <= good.calls; n += step) {
    MemoryHost host;
    set(host, sample);
    host.fail_at = n;
    now_at(cat("a run in which call ", n, " of the host fails"));
    const auto result = reading.read_all(host);
    if (result) return invalid(cat("call ", n, " of the host failed, and it went on as if not"));
    if (result.error().message.starts_with("leak") || host.allocated != 0)
      return invalid(cat("call ", n, " of the host failed: ", result.error().message));
  }
  return cat(good.calls, " calls");
}

Result<std::string> cancel_ends(const Reading& reading, const Sample& sample) {
  MemoryHost good;
  set(good, sample);
  XD_TRY(reading.read_all(good));
  for (uint64_t n : {uint64_t{1}, good.calls / 2 + 1, good.calls}) {
    MemoryHost host;
    set(host, sample);
    host.cancel_at = n;
    now_at("a run that is cancelled");
    const auto result = reading.read_all(host);
    if (host.allocated != 0) return invalid("a cancelled run keeps memory");
    if (!result && result.error().code != XD_CANCELLED)
      return invalid(
          cat("expected a cancelled run to give XD_CANCELLED, found ", result.error().message));
  }
  return std::string();
}

Result<std::string> memory_is_as_told(const Reading& reading, const Sample& sample) {
  MemoryHost host;
  set(host, sample);
  XD_TRY_SET(const auto reader, reading.open(host));
  for (uint64_t i = 0; i < reader->manifest.tensors.size(); ++i) {
    XD_TRY_SET(const ReadHint hint, reader->hint(i));
    const uint64_t before = host.allocated;
    host.peak_allocated = before;
    now_at(cat("read of ", reader->manifest.tensors[i].name));
    XD_TRY(reader->read(i));
    const uint64_t most = std::max(hint.scratch, kPiece);
    if (host.peak_allocated - before > most)
      return invalid(cat("tensor ", reader->manifest.tensors[i].name, ": a read took ",
                         host.peak_allocated - before, " bytes, more than a piece of ", kPiece,
                         " and than its read hint of ", hint.scratch));
  }
  return std::string();
}

Result<std::string> does_no_io(const Reading& reading, const Sample& sample) {
  if (!forbid_io(/*threads=*/false)) return skip("this system has no seccomp");
  MemoryHost host;
  set(host, sample);
  now_at("a run");
  XD_TRY(reading.read_all(host));
  return std::string();
}

// Cut anywhere, a file gives an error, or the same values: never fewer, never others.
Result<std::string> truncations_are_told(const Reading& reading, const Sample& sample,
                                         const Job& job) {
  MemoryHost good;
  set(good, sample);
  std::string manifest;
  XD_TRY_SET(const Values wanted, reading.read_all(good, &manifest));
  std::mt19937_64 random(job.seed);
  uint64_t refused = 0, n = 0;
  for (const auto& [name, bytes] : sample.files) {
    if (!good.opened.contains(name)) continue;
    std::set<uint64_t> sizes;  // all of a small file
    if (bytes.size() <= job.samples) {
      for (uint64_t size = 0; size < bytes.size(); ++size) sizes.insert(size);
    } else {
      for (uint64_t k = 1; k <= 16; ++k) sizes.insert({k - 1, bytes.size() - k});
      while (sizes.size() < job.samples) sizes.insert(random() % bytes.size());
    }
    for (const uint64_t size : sizes) {
      MemoryHost host;
      set(host, sample);
      host.inputs[name].resize(size);
      now_at(cat("a run over ", name, " cut to ", size, " of ", bytes.size(), " bytes"));
      const auto got = reading.read_all(host);
      ++n;
      refused += !got;
      if (host.allocated != 0) return invalid(cat(name, " cut to ", size, ": it keeps memory"));
      if (got && *got != wanted)
        return invalid(cat(name, " cut to ", size, " of ", bytes.size(),
                           " bytes was taken for a whole file, with other values"));
    }
  }
  return cat(refused, " of ", n, " refused");
}

// A flipped bit may change values, and must not crash.
Result<std::string> flips_are_outlived(const Reading& reading, const Sample& sample,
                                       const Job& job) {
  MemoryHost good;
  set(good, sample);
  XD_TRY(reading.read_all(good));
  std::mt19937_64 random(job.seed);
  uint64_t n = 0;
  for (const auto& [name, bytes] : sample.files) {
    if (!good.opened.contains(name) || bytes.empty()) continue;
    for (size_t k = 0; k < job.samples; ++k) {
      // Headers, which lie at an end, more often than values.
      const uint64_t near = std::min<uint64_t>(bytes.size(), 512);
      const uint64_t at = k % 3 == 0   ? random() % bytes.size()
                          : k % 3 == 1 ? random() % near
                                       : bytes.size() - 1 - random() % near;
      MemoryHost host;
      set(host, sample);
      host.budget = 256 << 20;
      host.inputs[name][at] = static_cast<char>(host.inputs[name][at] ^ (1 << random() % 8));
      now_at(cat("a run over ", name, " with a bit flipped at ", at));
      (void)reading.read_all(host);
      if (host.allocated != 0) return invalid(cat(name, ", flipped at ", at, ": it keeps memory"));
      ++n;
    }
  }
  return cat(n, " flips");
}

Result<std::string> finds_its_own(const Reading& reading, const Sample& sample) {
  MemoryHost host;
  set(host, sample);
  now_at("probe");
  const int score = test::probe(host, reading.desc());
  if (score < 1 || score > 100)
    return invalid(cat("expected a score of 1 to 100 for an input of the corpus, found ", score));
  if (host.allocated != 0) return invalid("probe keeps memory");
  return cat("score ", score);
}

// Inputs that are nobody's: noise under names that the plugin says are its own.
std::vector<Sample> noise(const xd_plugin_desc& desc, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<std::string> names{"model.bin", "x"};
  for (auto p = desc.patterns; p && *p; ++p) {
    std::string name = *p;
    std::replace(name.begin(), name.end(), '*', 'm');
    names.push_back(name);
  }
  std::vector<Sample> out{{"an empty folder", {}, ""}};
  for (const std::string& name : names) {
    for (const size_t size : {0, 1, 7, 8, 64, 4096}) {
      std::string bytes(size, '\0');
      for (char& c : bytes) c = static_cast<char>(random());
      out.push_back({cat(size, " random bytes"), {{name, bytes}}, name});
      out.push_back({cat("a folder with ", size, " random bytes"), {{name, bytes}}, ""});
      out.push_back({cat(size, " zeros"), {{name, std::string(size, '\0')}}, name});
    }
  }
  return out;
}

Result<std::string> probe_is_total(const Reading& reading, const Job& job) {
  size_t n = 0;
  for (const Sample& sample : noise(reading.desc(), job.seed)) {
    MemoryHost host;
    set(host, sample);
    now_at(cat("probe of ", sample.path));
    const int first = test::probe(host, reading.desc()), second = test::probe(host, reading.desc());
    if (first < 0 || first > 100)
      return invalid(cat(sample.path, ": expected a score of 0 to 100, found ", first));
    if (first != second) return invalid(cat(sample.path, ": a second probe gave another score"));
    if (host.allocated != 0) return invalid(cat(sample.path, ": probe keeps memory"));
    now_at(cat("open of ", sample.path));
    const auto opened = reading.open(host);
    if (!opened && opened.error().message.find("no message") != std::string::npos)
      return invalid(cat(sample.path, ": ", opened.error().message));
    ++n;
  }
  return cat(n, " inputs that are nobody's");
}

// Which calls probe may make, by faults: a file that cannot be read is not its own.
Result<std::string> probe_outlives_faults(const Reading& reading, const Sample& sample) {
  for (uint64_t n = 1; n < 20; ++n) {
    MemoryHost host;
    set(host, sample);
    host.fail_at = n;
    now_at("probe of a file that cannot be read");
    const int score = test::probe(host, reading.desc());
    if (score < 0 || score > 100) return invalid(cat("a score of ", score, " after a fault"));
    if (host.allocated != 0) return invalid("probe keeps memory after a fault");
  }
  return std::string();
}

template <class Body>
std::function<Result<std::string>()> reading(const Job& job, const std::string& id, Body body) {
  return [&job, id, body]() -> Result<std::string> {
    XD_TRY_SET(const Reading reader, Reading::start(job, id));
    return body(reader);
  };
}

}  // namespace

std::vector<Case> probe_cases(const Job& job, const std::string& id) {
  return {{"probe.total", "scores anything with 0 to 100, the same again, and opens no nonsense",
           reading(job, id, [&](const Reading& r) { return probe_is_total(r, job); })}};
}

std::vector<Case> reader_cases(const Job& job, const std::string& id, const Sample& sample) {
  const auto make = [&](auto body) { return reading(job, id, body); };
  return {
      {"probe.own", "finds its own inputs",
       make([&](const Reading& r) { return finds_its_own(r, sample); })},
      {"probe.faults", "outlives files that cannot be read",
       make([&](const Reading& r) { return probe_outlives_faults(r, sample); })},
      {"read.manifest", "gives a manifest that holds, the same each time",
       make([&](const Reading& r) { return manifest_is_right(r, sample); })},
      {"read.ranges", "parts of a tensor are parts of the whole",
       make([&](const Reading& r) { return ranges_are_right(r, sample, job); })},
      {"read.bad-ranges", "refuses ranges and buffers that are wrong",
       make([&](const Reading& r) { return bad_ranges_are_refused(r, sample); })},
      {"read.threads", "gives the same values to several threads",
       make([&](const Reading& r) { return threads_agree(r, sample); })},
      {"read.faults", "tells of every call of the host that fails, and keeps nothing",
       make([&](const Reading& r) { return faults_are_told(r, sample, job); })},
      {"read.cancel", "ends when it is cancelled, and keeps nothing",
       make([&](const Reading& r) { return cancel_ends(r, sample); })},
      {"read.memory", "holds no more than its read hint, or a piece",
       make([&](const Reading& r) { return memory_is_as_told(r, sample); })},
      {"read.no-io", "does no I/O of its own",
       make([&](const Reading& r) { return does_no_io(r, sample); })},
      {"read.truncations", "tells of files that are cut off",
       make([&](const Reading& r) { return truncations_are_told(r, sample, job); })},
      {"read.flips", "outlives flipped bits",
       make([&](const Reading& r) { return flips_are_outlived(r, sample, job); })},
  };
}

}  // namespace crossdock::validate
