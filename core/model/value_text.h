// SPDX-License-Identifier: Apache-2.0

// Values of manifests (metadata, hyper-parameters) as people and programs read them.
#pragma once

#include "core/base/json_writer.h"

#include <crossdock/manifest_wire.hpp>

#include <string>

namespace crossdock::model {

// On one line, cut behind `limit` characters or so: {"lr": [0.003], "step": 3}; of long lists the
// length alone. A text that stands alone has no quotes. Only printable characters.
std::string value_text(const manifest::Value& value, size_t limit = 160);

// As JSON has it; bytes and values that are not set are null.
void write_value(base::JsonWriter& json, const manifest::Value& value);
void write_values(base::JsonWriter& json, const std::vector<manifest::KeyValue>& entries);

}  // namespace crossdock::model
