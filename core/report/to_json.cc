// SPDX-License-Identifier: Apache-2.0
#include "core/base/json_writer.h"
#include "core/report/report.h"
#include "core/report/self_digest.h"

namespace crossdock::report {

namespace {

using base::JsonWriter;

void add_source(JsonWriter& json, const Source& source) {
  json.key("source").begin_object();
  json.member("given", source.given).member("path", source.path).member("format", source.format);
  json.key("files").begin_array();
  for (const SourceFile& file : source.files) {
    json.begin_object().member("name", file.name).member("size", file.size);
    if (!file.hub_digest.empty()) json.member("hub_digest", file.hub_digest);
    if (!file.rest_digest.empty()) json.member("rest_digest", file.rest_digest);
    json.end_object();
  }
  json.end_array();
  json.key("beside").begin_array();
  for (const SourceFile& file : source.beside) {
    json.begin_object().member("name", file.name).member("size", file.size);
    json.member("rest_digest", file.rest_digest).end_object();
  }
  json.end_array().end_object();
}

void add_plugin(JsonWriter& json, const char* key, const Plugin& plugin) {
  json.key(key).begin_object().member("id", plugin.id).member("version", plugin.version);
  json.key("options").begin_object();
  for (const auto& [name, values] : plugin.options)
    values.size() == 1 ? json.member(name, values[0]) : json.member(name, values);
  json.end_object().end_object();
}

void add_tensor(JsonWriter& json, const Tensor& t) {
  json.begin_object().member("name", t.name);
  if (t.target != t.name) json.member("target", t.target);
  json.member("role", t.role).member("dtype", t.dtype).member("shape", t.shape);
  json.member("digest", t.digest);
  if (!t.expression.empty()) json.member("expression", t.expression);
  if (t.excluded.empty()) {
    json.member("objects", t.objects);
  } else {
    json.member("excluded", t.excluded);
  }
  json.end_object();
}

}  // namespace

std::string to_json(const Report& r) {
  JsonWriter json;
  json.begin_object();
  json.member("crossdock", r.crossdock).member("schema", kSchema);
  json.member("plan", r.plan).member("arguments", r.arguments);
  add_source(json, r.source);
  add_plugin(json, "reader", r.reader);
  add_plugin(json, "writer", r.writer);
  json.key("notes").begin_array();
  for (const std::string& note : r.notes) json.value(note);
  json.end_array();

  // What a job can compare its named_parameters() with; of the tensors, so it is not read back.
  json.key("parameters").begin_array();
  for (const Tensor& t : r.tensors) {
    if (!t.excluded.empty() || t.role != "parameter") continue;
    json.begin_object().member("name", t.target).member("shape", t.shape);
    json.member("source", t.name).end_object();
  }
  json.end_array();

  json.key("tensors").begin_array();
  for (const Tensor& t : r.tensors) add_tensor(json, t);
  json.end_array();
  json.key("files").begin_array();
  for (const File& file : r.files) {
    json.begin_object().member("path", file.path).member("size", file.size);
    json.member("digest", file.digest).end_object();
  }
  json.end_array();
  json.key("timings").begin_object();
  for (const auto& [name, seconds] : r.timings) json.member(name, seconds);
  json.end_object();
  json.end_object();
  return with_digest(std::move(json).take());
}

}  // namespace crossdock::report
