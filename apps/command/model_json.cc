// SPDX-License-Identifier: Apache-2.0
#include "apps/command/model_json.h"

#include "core/base/json_writer.h"
#include "core/model/rank_memory.h"
#include "core/model/value_text.h"

#include <utility>

namespace crossdock::app {

using manifest::Manifest;

bool is_trained(const Manifest& m) {
  return !m.training.groups.empty() || !m.training.moments.empty() || m.training.step > 0;
}

namespace {

void write_training(base::JsonWriter& json, const Manifest& m) {
  json.key("training").begin_object();
  json.member("step", m.training.step).member("optimizer", m.training.optimizer);
  json.key("groups").begin_array();
  for (const manifest::ParameterGroup& group : m.training.groups) {
    json.begin_object().key("parameters").begin_array();
    for (const uint64_t tensor : group.tensors) json.value(m.tensors[tensor].target());
    json.end_array().key("hyper_parameters");
    model::write_values(json, group.hyper_parameters);
    json.end_object();
  }
  json.end_array();
  if (const auto memory = model::rank_memory(m)) {
    json.key("bytes_per_rank").begin_object();
    json.member("weights", memory->weights)
        .member("gradients", memory->gradients)
        .member("optimizer", memory->optimizer)
        .end_object();
  }
  json.end_object();
}

void write_statistics(base::JsonWriter& json, const verify::Statistics& s) {
  if (!s.has_numbers) return;
  json.key("statistics").begin_object();
  json.member("nan", s.n_nan).member("inf", s.n_inf).member("zero", s.n_zero);
  json.member("min", s.min).member("max", s.max).member("mean", s.mean);
  json.member("constant", s.is_constant).end_object();
}

}  // namespace

std::string model_json(const convert::TensorSource& tensors, const Values& values) {
  const convert::OpenModel& model = tensors.model();
  const Manifest& m = tensors.manifest();
  base::JsonWriter json;
  json.begin_object()
      .member("path", model.input().root().string())
      .member("format", m.source.format)
      .member("reader", model.reader().id());
  json.key("files").begin_array();
  for (const auto& file : m.source.files)
    json.begin_object().member("name", file.name).member("size", file.size).end_object();
  json.end_array();
  json.key("metadata");
  model::write_values(json, m.source.metadata);
  if (is_trained(m)) write_training(json, m);
  json.key("tensors").begin_array();
  for (size_t i = 0; i < m.tensors.size(); ++i) {
    const auto& t = m.tensors[i];
    json.begin_object()
        .member("name", t.target())
        .member("dtype", manifest::name(t.dtype))
        .member("shape", t.shape);
    if (!t.target_name.empty()) json.member("source", t.name);
    if (!t.expression.empty()) json.member("expression", t.expression);
    if (!values.digests.empty()) json.member("digest", values.digests[i]);
    if (!values.statistics.empty()) write_statistics(json, values.statistics[i]);
    json.end_object();
  }
  json.end_array().end_object();
  return std::move(json).take();
}

}  // namespace crossdock::app
