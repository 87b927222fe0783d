// Writes a Content: the data-carrying part by one item, the rest by seal, each in increasing offset
// order.
//
// The host keeps an item's result for seal: the CRC of every storage, four bytes each. Contents
// without an item (only holes and small zeros) are written by seal alone. Any thread.
#pragma once

#include <crossdock/plugin.hpp>

#include <atomic>
#include <string>
#include <string_view>
#include <vector>

#include "plugins/torch/write/content.h"

namespace crossdock::torch_write {

bool needs_item(const Content& content);
// What plan_item is told of it.
std::vector<xd_range> needs(const Content& content);
uint64_t item_bytes(const Content& content);
uint64_t item_memory(const Content& content);

// `beyond_fp16`, where given, counts the values that a job in fp16 cannot hold: finite ones that
// round to infinity, and in what is written as fp16 infinities. Buffers do not count: they keep
// their type.
Result<std::string> write_item(const Host& host, const Content& content, Object& out,
                               std::atomic<uint64_t>* beyond_fp16 = nullptr);
// `results`: those of the content's item, when it has one.
Result<void> seal(const Host& host, const Content& content, Object& out,
                  std::span<const std::string_view> results);

}  // namespace crossdock::torch_write
