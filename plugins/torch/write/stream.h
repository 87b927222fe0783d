// SPDX-License-Identifier: Apache-2.0

// Writes a Content: its items the data and what stands around the storages that they hold whole,
// seal the rest, each in increasing offset order. Any thread, any order of items.
#pragma once

#include <crossdock/plugin.hpp>

#include <string>
#include <string_view>

#include "plugins/torch/write/items.h"

namespace crossdock::torch_write {

// Gives the item's result, for seal (results.h).
Result<std::string> write_item(const Host& host, const Content& content, const Item& item,
                               Object& out);

// `results`: those of the content's items, when it has any.
Result<void> seal(const Host& host, const Content& content, Object& out,
                  std::span<const std::string_view> results);

}  // namespace crossdock::torch_write
