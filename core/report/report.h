// SPDX-License-Identifier: Apache-2.0

// What a conversion did: DST/crossdock.json, for people and programs. A value, so that verifying a
// folder, going on with one, and replacing one all read what a conversion wrote.
#pragma once

#include <crossdock/result.hpp>

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace crossdock::report {

// Goes up when a reader of the JSON must change.
inline constexpr uint64_t kSchema = 3;

struct SourceFile {
  std::string name;  // relative to the source's folder
  uint64_t size = 0;
  std::string hub_digest;  // "sha256:...", by the Hub's cache; empty: it does not say
  // Of the file's bytes that no tensor's digest proves: headers, padding, codes (convert's
  // source_proof.h). Empty: nobody took it.
  std::string rest_digest;
};

struct Source {
  std::string given;   // as the user named it
  std::string path;    // where that is
  std::string format;  // "safetensors", "gguf/3"
  std::vector<SourceFile> files;   // of weights
  std::vector<SourceFile> beside;  // config.json, the tokenizer; their digest is of all bytes
};

struct Plugin {
  std::string id, version;
  std::map<std::string, std::vector<std::string>> options;  // its own, with the fallbacks it used
};

struct Tensor {
  std::string name;    // the source's
  std::string target;  // the job's
  std::string role;    // "parameter", "buffer", "optimizer_state"
  std::string dtype;   // "BF16"
  std::vector<uint64_t> shape;
  std::string digest;      // of the values in that type, dense and row-major
  std::string expression;  // how the values are made of stored tensors; empty: they are stored so
  std::vector<std::string> objects;  // paths of the files that it went into
  std::string excluded;              // why it went into none; empty: it did
};

struct File {
  std::string path;  // relative to the report's folder
  uint64_t size = 0;
  std::string digest;
};

struct Report {
  std::string crossdock;  // the version
  // The flags of `crossdock convert` that say what is made, paths absolute: "--to=universal". With
  // them the same can be made again, or checked.
  std::vector<std::string> arguments;
  std::string plan;  // which conversion this is: runs that make the same have the same
  Source source;
  Plugin reader, writer;
  std::vector<std::string> notes;
  std::vector<Tensor> tensors;                          // in the source's order
  std::vector<File> files;                              // all but the report itself
  std::vector<std::pair<std::string, double>> timings;  // seconds
};

// The text ends with a digest of itself (self_digest.h).
std::string to_json(const Report& report);

// What to_json() wrote. Errors: text that is no JSON, another schema, a field that is missing or of
// another type, and a text of which any bit is not as it was written.
Result<Report> from_json(std::string_view text);

}  // namespace crossdock::report
