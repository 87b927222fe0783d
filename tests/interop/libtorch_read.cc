// SPDX-License-Identifier: Apache-2.0

// Reads .pt files with libtorch's own zip reader and unpickler, and prints a line for every tensor
// found:
//
//   FILE <tab> path inside the pickle <tab> dtype <tab> shape <tab> strides <tab> checksum of its
//   elements' bytes
//
// The checksum is Adler-32: short to write here, and known to Python as zlib.adler32.

#include <ATen/core/Dict.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <caffe2/serialize/inline_container.h>
#include <torch/csrc/jit/serialization/import_read.h>

#include <cstdint>
#include <cstdio>
#include <exception>
#include <iostream>
#include <string>

namespace {

uint32_t adler32(const at::Tensor& tensor) {
  const at::Tensor dense = tensor.contiguous();
  const auto* bytes = static_cast<const uint8_t*>(dense.data_ptr());
  uint32_t a = 1, b = 0;
  for (size_t i = 0; i < dense.nbytes(); ++i) {
    a = (a + bytes[i]) % 65521;
    b = (b + a) % 65521;
  }
  return b << 16 | a;
}

void print(const std::string& file, const std::string& path, const at::Tensor& tensor) {
  std::cout << file << '\t' << path << '\t' << tensor.scalar_type() << '\t' << tensor.sizes()
            << '\t' << tensor.strides() << '\t' << adler32(tensor) << '\n';
}

void walk(const std::string& file, const std::string& path, const c10::IValue& value) {
  if (value.isTensor()) {
    print(file, path, value.toTensor());
  } else if (value.isGenericDict()) {
    for (const auto& entry : value.toGenericDict()) {
      const auto& key = entry.key();
      walk(file, path + '/' + (key.isString() ? key.toStringRef() : std::to_string(key.toInt())),
           entry.value());
    }
  } else if (value.isList()) {
    size_t i = 0;
    for (const c10::IValue item : value.toListRef())
      walk(file, path + '/' + std::to_string(i++), item);
  }
}

}  // namespace

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) try {
      caffe2::serialize::PyTorchStreamReader reader{std::string(argv[i])};
      walk(argv[i], "",
           torch::jit::readArchiveAndTensors("data", "", "", std::nullopt, std::nullopt, at::kCPU,
                                             reader));
    } catch (const std::exception& error) {
      std::cerr << argv[i] << ": " << error.what() << '\n';
      return 1;
    }
}
