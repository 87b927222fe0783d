#include "core/convert/report.h"

#include "core/base/json_writer.h"

#include <algorithm>
#include <map>

namespace crossdock::convert {

std::string to_json(const Report& r) {
  const auto& tensors = r.target->tensors;
  std::vector<std::vector<std::string>> targets(tensors.size());
  std::vector<std::string> dropped(tensors.size());
  for (const plugin::PlanItem& item : r.plan->items) {
    const std::string& path = r.plan->objects[item.object].path;
    for (const plugin::PlanNeed& need : item.needs) {
      auto& list = targets[need.tensor];
      if (std::find(list.begin(), list.end(), path) == list.end()) list.push_back(path);
    }
  }
  for (const auto& [tensor, reason] : r.plan->drops) dropped[tensor] = reason;

  base::JsonWriter json;
  json.begin_object();
  json.member("crossdock", CROSSDOCK_VERSION);
  json.key("source").begin_object();
  json.member("given", r.model->input().given()).member("path", r.model->input().root().string());
  json.member("format", r.target->source.format).member("reader", r.model->reader().id());
  json.key("files").begin_array();
  for (const auto& file : r.target->source.files) {
    json.begin_object().member("name", file.name).member("size", file.size);
    if (!file.digest.empty()) json.member("hub_digest", file.digest);  // the cache's word
    json.end_object();
  }
  json.end_array().end_object();
  json.member("writer", r.writer->id());
  json.key("options").begin_object();
  std::map<std::string, std::vector<std::string>> options;
  for (const auto& [key, value] : r.options) options[key].push_back(value);
  for (const auto& [key, values] : options)
    values.size() == 1 ? json.member(key, values[0]) : json.member(key, values);
  json.end_object();
  json.key("notes").begin_array();
  for (const std::string& note : r.notes) json.value(note);
  json.end_array();

  // What a job can compare its named_parameters() with, in the source's order.
  json.key("parameters").begin_array();
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (targets[i].empty() || tensors[i].role != manifest::Role::kParameter) continue;
    json.begin_object()
        .member("name", tensors[i].target())
        .member("shape", tensors[i].shape)
        .member("source", tensors[i].name)
        .end_object();
  }
  json.end_array();

  json.key("tensors").begin_array();
  for (size_t i = 0; i < tensors.size(); ++i) {
    const manifest::Tensor& t = tensors[i];
    json.begin_object()
        .member("name", t.name)
        .member("dtype", manifest::name(t.dtype))
        .member("shape", t.shape);
    json.member("digest", r.tensor_digests[i]);
    if (!targets[i].empty()) {
      json.member("targets", targets[i]);
    } else {
      json.member("dropped", t.left_out.empty() ? dropped[i] : t.left_out);
    }
    json.end_object();
  }
  json.end_array();

  json.key("files").begin_array();
  for (const FileEntry& file : r.files) {
    json.begin_object()
        .member("path", file.path)
        .member("size", file.size)
        .member("digest", file.digest)
        .end_object();
  }
  json.end_array();
  json.key("timings").begin_object();
  for (const auto& [name, seconds] : r.seconds) json.member(name, seconds);
  json.end_object();
  json.end_object();
  return std::move(json).take();
}

}  // namespace crossdock::convert
