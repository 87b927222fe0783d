// SPDX-License-Identifier: Apache-2.0

// Opcodes that pickles have and we do not take, for messages: those of text pickles, which protocol
// 2 has none of, of protocols 4 and 5, and of Python's registry of extensions.
#pragma once

#include <crossdock/result.hpp>

#include <cstdint>
#include <string>
#include <string_view>

namespace crossdock::torch_read {

struct RefusedOpcode {
  uint8_t code;
  std::string_view name;
};
inline constexpr RefusedOpcode kRefused[] = {
    {'2', "DUP"},          {'F', "FLOAT"},       {'I', "INT"},           {'L', "LONG"},
    {'P', "PERSID"},       {'S', "STRING"},      {'V', "UNICODE"},       {'d', "DICT"},
    {'g', "GET"},          {'i', "INST"},        {'l', "LIST"},          {'p', "PUT"},
    {0x82, "EXT1"},        {0x83, "EXT2"},       {0x84, "EXT4"},         {0x8c, "SHORT_BINUNICODE"},
    {0x8d, "BINUNICODE8"}, {0x8e, "BINBYTES8"},  {0x8f, "EMPTY_SET"},    {0x90, "ADDITEMS"},
    {0x91, "FROZENSET"},   {0x92, "NEWOBJ_EX"},  {0x93, "STACK_GLOBAL"}, {0x94, "MEMOIZE"},
    {0x95, "FRAME"},       {0x96, "BYTEARRAY8"}, {0x97, "NEXT_BUFFER"},  {0x98, "READONLY_BUFFER"},
};

inline std::string name_of_refused(uint8_t code) {
  for (const RefusedOpcode& r : kRefused) {
    if (r.code == code) return std::string(r.name);
  }
  return cat("byte ", code);
}

}  // namespace crossdock::torch_read
