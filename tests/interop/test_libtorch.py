"""libtorch's C++ reader reads what crossdock wrote. It is another reader than Python's: other zip code, other unpickler."""
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
import torch

from recipes import PLAIN

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def libtorch_read():
    """The program, built beside the project's own builds and kept from run to run."""
    build = HERE.parents[1] / "build/libtorch_read"
    torch_folder = Path(torch.utils.cmake_prefix_path)  # <torch>/share/cmake
    ninja = ["-G", "Ninja"] if shutil.which("ninja") else []
    # share/cmake alone, not all of torch's folder: its include/ carries another protobuf and another fmt
    subprocess.run(["cmake", "-S", HERE / "libtorch_read", "-B", build, *ninja, "-DCMAKE_BUILD_TYPE=Release",
                    f"-DTorch_DIR={torch_folder / 'Torch'}", f"-DCMAKE_LIBRARY_PATH={torch_folder.parents[1] / 'lib'}",
                    f"-DTORCH_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"], check=True, stdout=sys.stderr)
    subprocess.run(["cmake", "--build", build], check=True, stdout=sys.stderr)
    return build / "libtorch_read"


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
