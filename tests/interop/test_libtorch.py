# SPDX-License-Identifier: Apache-2.0
"""libtorch's C++ reader reads what crossdock wrote. It is another reader than Python's: other zip code, other unpickler."""
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
import torch
from torch.utils.cpp_extension import include_paths

from recipes import PLAIN

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def libtorch_read():
    """The program, built beside the project's own builds and kept from run to run. Not by TorchConfig.cmake, which wants the
    CUDA toolkit where torch was built for CUDA."""
    source, torch_folder = HERE / "libtorch_read.cc", Path(torch.__file__).parent
    program = HERE.parents[1] / "build" / f"libtorch_read-{torch.__version__}"
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        program.parent.mkdir(exist_ok=True)
        subprocess.run(["c++", "-std=c++20", f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}",
                        *(f"-isystem{path}" for path in include_paths()), source, "-o", program, f"-L{torch_folder / 'lib'}",
                        f"-Wl,-rpath,{torch_folder / 'lib'}", "-Wl,--allow-shlib-undefined", "-ltorch_cpu", "-lc10"],
                       check=True, stdout=sys.stderr)
    return program


def lines_by_python(path):
    """What the program must print for a file, from Python's torch.load."""
    names = {torch.float32: "Float", torch.bfloat16: "BFloat16", torch.float16: "Half"}

    def walk(where, value):
        if isinstance(value, torch.Tensor):
            data = value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            size, stride = (f"[{', '.join(map(str, numbers))}]" for numbers in (value.shape, value.stride()))
            yield "\t".join([str(path), where, names[value.dtype], size, stride, str(zlib.adler32(data))])
        elif isinstance(value, dict):
            for key, item in value.items():
                yield from walk(f"{where}/{key}", item)
        elif isinstance(value, list):
            for i, item in enumerate(value):
                yield from walk(f"{where}/{i}", item)

    return list(walk("", torch.load(path, weights_only=True)))


@pytest.mark.parametrize("flags", [(), ("--compact",), ("--moments", "dense")], ids=str)
def test_reads_every_tensor_file(libtorch_read, converted, flags):
    files = sorted((converted(PLAIN, *flags) / "global_step0/zero").rglob("*.pt"))
    done = subprocess.run([libtorch_read, *files], text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    expected = [line for file in files for line in lines_by_python(file)]
    assert len(expected) == len(files), "one tensor in every file"
    assert done.stdout.splitlines() == expected
