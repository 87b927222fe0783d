// SPDX-License-Identifier: Apache-2.0

// The globals that a state dict is made of, and what is known of others.
#pragma once

#include <crossdock/dtype.hpp>

#include <cstdint>
#include <optional>
#include <string_view>

namespace crossdock::torch_read {

enum class Global : uint32_t {
  // Callables.
  kOrderedDict,
  kCounter,
  kDefaultDict,
  kEncode,
  kSet,
  kBytearray,
  kComplex,
  kSize,
  kDevice,
  kGetLayout,
  kRebuildTensor,
  kRebuildTensorV2,
  kRebuildTensorV3,
  kRebuildParameter,
  kRebuildParameterWithState,
  kFromCpuTensor,
  kRebuildFromType,
  // Classes that are only named.
  kTensor,
  kParameter,
  kStorage,  // of a dtype
  kDType,    // of a dtype
};

struct KnownGlobal {
  Global what;
  manifest::DType dtype;  // of a storage's elements, or the dtype itself
};

std::optional<KnownGlobal> find_global(std::string_view module, std::string_view name);

// One that no checkpoint has a use for: it starts programs, opens files, or gives access to all
// that does.
bool is_attack(std::string_view module, std::string_view name);

// Whether a value of an unknown global stands for a tensor or array, whose values would be lost
// without it.
bool holds_values(std::string_view module, std::string_view name);

// Whether what a call of an unknown global gives is best named after its first argument.
bool is_of_its_argument(std::string_view module, std::string_view name);

// What an unknown global most probably stands for and what to do about it; empty when there is
// nothing better to say.
std::string_view advice_on(std::string_view module, std::string_view name);

}  // namespace crossdock::torch_read
