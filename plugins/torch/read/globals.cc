// SPDX-License-Identifier: Apache-2.0
#include "plugins/torch/read/globals.h"

#include <algorithm>
#include <array>

namespace crossdock::torch_read {

namespace {

using manifest::DType;

struct Named {
  std::string_view module, name;
  Global what;
};

// Protocol 2 spells Python 3's builtins as Python 2's __builtin__.
constexpr Named kGlobals[] = {
    {"collections", "OrderedDict", Global::kOrderedDict},
    {"collections", "Counter", Global::kCounter},
    {"collections", "defaultdict", Global::kDefaultDict},
    {"_codecs", "encode", Global::kEncode},
    {"__builtin__", "set", Global::kSet},
    {"builtins", "set", Global::kSet},
    {"__builtin__", "bytearray", Global::kBytearray},
    {"builtins", "bytearray", Global::kBytearray},
    {"__builtin__", "complex", Global::kComplex},
    {"builtins", "complex", Global::kComplex},
    {"torch", "Size", Global::kSize},
    {"torch", "device", Global::kDevice},
    {"torch.serialization", "_get_layout", Global::kGetLayout},
    {"torch._utils", "_rebuild_tensor", Global::kRebuildTensor},
    {"torch._utils", "_rebuild_tensor_v2", Global::kRebuildTensorV2},
    {"torch._utils", "_rebuild_tensor_v3", Global::kRebuildTensorV3},
    {"torch._utils", "_rebuild_parameter", Global::kRebuildParameter},
    {"torch._utils", "_rebuild_parameter_with_state", Global::kRebuildParameterWithState},
    {"torch._utils", "_rebuild_device_tensor_from_cpu_tensor", Global::kFromCpuTensor},
    {"torch._tensor", "_rebuild_from_type_v2", Global::kRebuildFromType},
    {"torch", "Tensor", Global::kTensor},
    {"torch.nn.parameter", "Parameter", Global::kParameter},
};

struct Type {
  std::string_view dtype, storage;
  DType type;
};

constexpr Type kTypes[] = {
    {"bool", "BoolStorage", DType::BOOL},
    {"uint8", "ByteStorage", DType::U8},
    {"int8", "CharStorage", DType::I8},
    {"int16", "ShortStorage", DType::I16},
    {"int32", "IntStorage", DType::I32},
    {"int64", "LongStorage", DType::I64},
    {"float16", "HalfStorage", DType::F16},
    {"bfloat16", "BFloat16Storage", DType::BF16},
    {"float32", "FloatStorage", DType::F32},
    {"float64", "DoubleStorage", DType::F64},
    {"complex64", "ComplexFloatStorage", DType::C64},
    {"complex128", "ComplexDoubleStorage", DType::C128},
    // Those below have no storage class of their own: torch saves them untyped, with the dtype
    // beside.
    {"complex32", "", DType::C32},
    {"uint16", "", DType::U16},
    {"uint32", "", DType::U32},
    {"uint64", "", DType::U64},
    {"float8_e4m3fn", "", DType::F8_E4M3},
    {"float8_e5m2", "", DType::F8_E5M2},
    {"float8_e4m3fnuz", "", DType::F8_E4M3FNUZ},
    {"float8_e5m2fnuz", "", DType::F8_E5M2FNUZ},
    {"float8_e8m0fnu", "", DType::F8_E8M0},
};

struct Advice {
  std::string_view module, name, text;
};

constexpr std::string_view kSparse = "a sparse tensor: save its to_dense() instead";
constexpr std::string_view kQuantised = "a quantised tensor: save its dequantize() instead";
constexpr std::string_view kMeta =
    "a tensor on the meta device, which has no values: save the loaded model";
constexpr std::string_view kNumpy = "a numpy value: save it as a tensor or a plain number";
constexpr std::string_view kDevice =
    "a device's tensor saved by way of numpy: save its .cpu() instead";
constexpr std::string_view kDTensor =
    "a tensor that is spread over several devices: save its full_tensor() instead";
constexpr Advice kAdvice[] = {
    {"torch._utils", "_rebuild_sparse_tensor", kSparse},
    {"torch._utils", "_rebuild_sparse_csr_tensor", kSparse},
    {"torch._utils", "_rebuild_qtensor", kQuantised},
    {"torch._utils", "_rebuild_meta_tensor_no_storage", kMeta},
    {"torch._utils", "_rebuild_nested_tensor", "a nested tensor: save its parts"},
    {"torch._utils", "_rebuild_device_tensor_from_numpy", kDevice},
    {"torch._utils", "_rebuild_xla_tensor", kDevice},
    {"torch", "QInt8Storage", kQuantised},
    {"torch", "QUInt8Storage", kQuantised},
    {"torch", "QInt32Storage", kQuantised},
    {"torch", "QUInt4x2Storage", kQuantised},
    {"torch", "QUInt2x4Storage", kQuantised},
    {"torch.distributed.tensor", "DTensor", kDTensor},
    {"torch.distributed._tensor.api", "DTensor", kDTensor},
    {"numpy.core.multiarray", "_reconstruct", kNumpy},
    {"numpy._core.multiarray", "_reconstruct", kNumpy},
    {"numpy.core.multiarray", "scalar", kNumpy},
    {"numpy._core.multiarray", "scalar", kNumpy},
    {"argparse", "Namespace", "the program's arguments: save model.state_dict() alone"},
};

// Whole modules. Builtins are attacked by name, since pickles have others of them (getattr, set,
// slice).
constexpr std::string_view kAttackModules[] = {
    "os",  "posix",      "nt",     "sys",    "subprocess", "commands", "runpy", "importlib", "imp",
    "pty", "webbrowser", "shutil", "socket", "_socket",    "ctypes",   "pdb",   "bdb"};
constexpr std::string_view kAttackBuiltins[] = {"eval",       "exec",       "execfile",  "compile",
                                                "__import__", "open",       "file",      "input",
                                                "raw_input",  "breakpoint", "open_code", "FileIO"};

}  // namespace

std::optional<KnownGlobal> find_global(std::string_view module, std::string_view name) {
  const auto named = std::find_if(std::begin(kGlobals), std::end(kGlobals), [&](const Named& g) {
    return g.module == module && g.name == name;
  });
  if (named != std::end(kGlobals)) return KnownGlobal{named->what, DType::UNSPECIFIED};
  if (module == "torch.storage" && name == "UntypedStorage")
    return KnownGlobal{Global::kStorage, DType::U8};
  if (module != "torch" && module != "torch.cuda") return std::nullopt;
  for (const Type& t : kTypes) {
    if (!t.storage.empty() && t.storage == name) return KnownGlobal{Global::kStorage, t.type};
    if (module == "torch" && t.dtype == name) return KnownGlobal{Global::kDType, t.type};
  }
  return std::nullopt;
}

bool is_attack(std::string_view module, std::string_view name) {
  const auto has = [](const auto& list, std::string_view what) {
    return std::find(std::begin(list), std::end(list), what) != std::end(list);
  };
  if (has(kAttackModules, module)) return true;
  const bool is_builtin =
      module == "builtins" || module == "__builtin__" || module == "io" || module == "_io";
  return is_builtin && has(kAttackBuiltins, name.substr(0, name.find('.')));
}

bool holds_values(std::string_view module, std::string_view name) {
  if (module == "torch._utils" || module == "torch._tensor") return name.starts_with("_rebuild");
  if (module == "torch.storage") return name == "_load_from_bytes";
  if (module.starts_with("__torch__")) return true;
  if (module.starts_with("torch") && name.ends_with("Tensor"))
    return true;  // torch.FloatTensor, DTensor, NestedTensor
  return module.starts_with("numpy") &&
         (name == "_reconstruct" || name == "ndarray" || name == "_frombuffer");
}

bool is_of_its_argument(std::string_view module, std::string_view name) {
  if (module == "__builtin__" || module == "builtins")
    return name == "getattr";  // enums, and classes inside classes
  return (module == "copy_reg" || module == "copyreg") && name == "_reconstructor";
}

std::string_view advice_on(std::string_view module, std::string_view name) {
  for (const Advice& a : kAdvice) {
    if (a.module == module && a.name == name) return a.text;
  }
  return module.starts_with("__torch__") ? "a TorchScript module: save model.state_dict() instead"
                                         : "";
}

}  // namespace crossdock::torch_read
