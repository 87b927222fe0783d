// The globals that a state dict is made of. Any other name in a pickle is refused.
#pragma once

#include <crossdock/dtype.hpp>

#include <cstdint>
#include <optional>
#include <string_view>

namespace crossdock::reader_bin {

enum class Global : uint32_t {
  // Callables.
  kOrderedDict,
  kCounter,
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

// What a refused global most probably stands for and what to do about it; empty when there is nothing better to say.
std::string_view advice_on(std::string_view module, std::string_view name);

}  // namespace crossdock::reader_bin
