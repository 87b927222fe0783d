// SPDX-License-Identifier: Apache-2.0

// Writes an item of a file, in increasing offset order; the first one the header too, so that a
// file of one item is written in one go. Any thread, any order of items.
#pragma once

#include <crossdock/plugin.hpp>

#include <string>

#include "plugins/writer_safetensors/items.h"

namespace crossdock::writer_safetensors {

// Gives what became infinite.
Result<common::Overflow> write_item(const Host& host, const manifest::Manifest& model,
                                    const File& file, const Item& item, Object& out);

}  // namespace crossdock::writer_safetensors
