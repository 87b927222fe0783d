# SPDX-License-Identifier: Apache-2.0
"""crossdock-validate: our own plugins pass it, and it finds out every one of a set of broken modules.

The modules are tests/validate/faulty.cc with one fault each (faults.txt); the host must outlive the same faults.
"""
import json
import signal
import struct
import subprocess
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from conftest import ROOT
from recipes import Source

FAULTS = [line.split() for line in (ROOT / "tests/validate/faults.txt").read_text().splitlines()
          if line and not line.startswith("#")]
# What keeps no promise of plugin.h and yet harms nobody who converts: the host need not tell.
HARMLESS = {"load-thread", "load-file", "entry-io", "entry-thread", "entry-memory", "entry-other", "probe-random",
            "probe-memory", "probe-fault-crash", "open-io", "open-memory", "read-io", "manifest-changes", "tensor-any",
            "range-zeros", "range-crash", "buffer-any", "cancel-code", "read-leak", "read-hungry", "read-race",
            "fault-ignored", "fault-leak", "flip-crash", "truncated-zeros", "range-shifted", "plan-random",
            "plan-pieces", "item-io", "item-leak", "order-counts", "result-random", "writers-share", "threads-share",
            "values-ignored", "values-changed", "wfault-ignored", "cancel-ignored", "seal-memory", "option-help",
            "caps-unknown", "probe-blind", "probe-crash", "load-hang", "entry-hang", "probe-hang", "open-hang", "manifest-hang", "read-hang",
            "plan-hang", "item-hang", "load-rounding", "item-rounding", "item-fork", "thread-left", "item-folder", "item-signal",
            "failed-and-well"}


@pytest.fixture(scope="module")
def validate(crossdock):
    path = Path(crossdock.path).with_name("crossdock-validate")

    def run(module, *args, fault=None, code=0):
        env = {**crossdock.env, **({"CROSSDOCK_TEST_FAULT": fault} if fault else {})}
        done = subprocess.run([path, module, *map(str, args), "--json"], env=env, capture_output=True, text=True,
                              timeout=600)
        assert code in (None, done.returncode), f"{fault}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        return {(case["plugin"], case["input"], case["case"]): case for case in json.loads(done.stdout)["cases"]}

    return run


@pytest.fixture(scope="module")
def modules(crossdock):
    return Path(crossdock.path).parents[1]


@pytest.fixture(scope="module")
def flt(tmp_path_factory):
    """A file of faulty.cc's own format."""
    tensors = {"a.weight": [1.0, 2.0, -3.5] * 40, "b": [0.25]}
    head = b"FLT1" + struct.pack("<Q", len(tensors))
    for name, values in tensors.items():
        head += struct.pack("<Q", len(name)) + name.encode() + struct.pack("<Q", len(values))
    values = b"".join(struct.pack(f"<{len(v)}f", *v) for v in tensors.values())
    path = tmp_path_factory.mktemp("flt") / "model.flt"
    path.write_bytes(head + values + bytes(8 * len(tensors)))
    return path


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, crossdock, source):
    """Small inputs for each of our readers, made by the real libraries or by our writers."""
    folder = tmp_path_factory.mktemp("corpus")
    torch.manual_seed(3)
    tensors = {"a.weight": torch.randn(7, 5).bfloat16(), "b": torch.randn(30), "s": torch.tensor(3.0),
               "i": torch.arange(5)}
    (folder / "st").mkdir()
    save_file(tensors, folder / "st/model.safetensors")
    torch.save(tensors, folder / "pytorch_model.bin")
    crossdock("convert", folder / "st", folder / "universal", "--to", "universal", "--no-sync")
    crossdock("convert", folder / "st", folder / "dcp", "--to", "dcp", "--no-sync")
    crossdock("convert", source(Source(tied=True, sharded=False, dtype="fp32")), folder / "zero3", "--to", "zero3", "--world-size", 2, "--lr", "1e-3",
              "--weight-decay", 0, "--no-sync")
    return {"safetensors": folder / "st/model.safetensors", "bin": folder / "pytorch_model.bin",
            "universal": folder / "universal", "zero": folder / "zero3", "dcp": folder / "dcp"}


def failed(cases):
    return {key: case["text"] for key, case in cases.items() if case["verdict"] == "failed"}


@pytest.mark.parametrize("name", ["safetensors", "bin", "universal", "zero", "dcp", "gguf"])
def test_our_readers_hold(validate, modules, corpus, name, tmp_path):
    if name == "gguf":
        gguf = pytest.importorskip("gguf")
        writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
        writer.add_tensor("token_embd.weight", torch.randn(8, 32).numpy())
        q = gguf.quants.quantize(torch.randn(4, 256).numpy(), gguf.GGMLQuantizationType.Q8_0)
        writer.add_tensor("blk.0.ffn_up.weight", q, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        writer.write_header_to_file(), writer.write_kv_data_to_file(), writer.write_tensors_to_file(), writer.close()
        corpus = {"gguf": tmp_path / "m.gguf"}
    cases = validate(modules / f"lib/crossdock/plugins-1/reader_{name}.xd.so", corpus[name], "--samples", 60)
    assert not failed(cases)
    assert sum(case["verdict"] == "ok" for case in cases.values()) >= 16


@pytest.mark.parametrize("name, flags", [("safetensors", []), ("universal", []), ("dcp", []),
                                         ("zero3", ["--option", "world-size=2", "--option", "lr=1e-3", "--option", "weight-decay=0"])])
def test_our_writers_hold(validate, modules, name, flags):
    cases = validate(modules / f"lib/crossdock/plugins-1/writer_{name}.xd.so", "--samples", 60, *flags)
    assert not failed(cases)
    assert sum(case["verdict"] == "ok" for case in cases.values()) >= 13


def test_the_module_holds_without_a_fault(validate, modules, flt):
    cases = validate(modules / "tests/validate/faulty/faulty.xd.so", flt)
    assert not failed(cases)
    assert all(case["verdict"] == "ok" for case in cases.values())


def test_a_thread_of_its_own_is_no_fault(validate, modules, flt):
    assert not failed(validate(modules / "tests/validate/faulty/faulty.xd.so", flt, fault="item-thread"))


def test_there_are_many_faults():
    assert len(FAULTS) >= 120 and len({fault for fault, _ in FAULTS}) == len(FAULTS)


@pytest.mark.parametrize("fault, case", FAULTS)
def test_each_fault_is_found(validate, modules, flt, fault, case):
    cases = validate(modules / "tests/validate/faulty/faulty.xd.so", flt, "--case", case, "--timeout", 3, fault=fault, code=1)
    assert case in {key[2] for key in failed(cases)}


def test_a_second_symbol_is_found(validate, modules):
    cases = validate(modules / "tests/validate/faulty_exports/faulty_exports.xd.so", "--case", "load.symbols", code=1)
    assert "expected xd_plugin_v1 alone to be exported" in list(failed(cases).values())[0]


def test_a_symbol_that_nobody_has_is_found(validate, modules):
    module = modules / "tests/abi/missing_symbol/missing_symbol.xd.so"
    assert "undefined symbol" in str(failed(validate(module, "--case", "load.quiet", code=1)))


@pytest.mark.parametrize("args, text", [([], "expected a plugin library"), (["none.xd.so"], "expected an ELF library"),
                                        ([".", ], "expected an ELF library"), (["M", "--option", "a"], "expected NAME=VALUE"),
                                        (["M", "--timeout", "-3"], "expected a number of 1 to"),
                                        (["M", "--samples", "-1"], "expected a number of 1 to"),
                                        (["M", "--case", "nope"], "--case: expected one of "),
                                        (["M", "no-such-file"], "no-such-file"), (["M", "--nonsense"], "nonsense")])
def test_usage(crossdock, modules, args, text, tmp_path):
    path = Path(crossdock.path).with_name("crossdock-validate")
    module = modules / "tests/validate/faulty/faulty.xd.so"
    done = subprocess.run([path, *(module if word == "M" else word for word in args)], capture_output=True, text=True,
                          cwd=tmp_path)
    assert done.returncode == 2 and text in done.stderr


# ---- the host, with the same modules

def convert(crossdock, modules, source, target, fault, *flags, timeout=60):
    flags = ["--to", "flt", "--plugin-path", modules / "tests/validate/faulty", "--no-sync", "--progress", "none",
             *flags]
    env = {**crossdock.env, "CROSSDOCK_TEST_FAULT": fault}
    return subprocess.run([crossdock.path, "convert", str(source), str(target), *map(str, flags)], env=env,
                          capture_output=True, text=True, timeout=timeout)


@pytest.fixture(scope="module")
def sources(flt, tmp_path_factory):
    """For faults of the reader, and for those of the writer, which has to leave a tensor out."""
    folder = tmp_path_factory.mktemp("source")
    save_file({"a.weight": torch.randn(30, 4), "n": torch.arange(3)}, folder / "model.safetensors")
    return {"reader": flt, "writer": folder / "model.safetensors"}


def test_the_host_converts_without_a_fault(crossdock, modules, sources, tmp_path):
    done = convert(crossdock, modules, sources["reader"], tmp_path / "out", "none")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out/crossdock.json").read_text())
    assert report["reader"]["version"] == report["writer"]["version"] == "1.0.0"
    assert report["reader"]["options"] == {"flag": "false"}


@pytest.mark.parametrize("fault, case", [pair for pair in FAULTS if pair[0] not in HARMLESS])
def test_the_host_tells_of_each_fault_by_name(crossdock, modules, sources, tmp_path, fault, case):
    source = sources["writer" if case.startswith(("plan.", "write.")) else "reader"]
    done = convert(crossdock, modules, source, tmp_path / "out", fault)
    assert done.returncode != 0 and not (tmp_path / "out").exists()
    names = ("org.example.reader.flt", "org.example.writer.flt", "faulty.xd.so")
    assert any(name in done.stderr for name in names), done.stderr
    assert len(done.stderr) < 100_000 and "\x1b" not in done.stderr


@pytest.mark.parametrize("fault", ["message-endless", "message-utf8"])
def test_messages_are_cut_and_escaped(crossdock, modules, sources, tmp_path, fault):
    done = convert(crossdock, modules, sources["reader"], tmp_path / "out", fault)
    assert done.returncode == 1 and "org.example.reader.flt: open" in done.stderr
    assert len(done.stderr) < 20_000 and "\x1b" not in done.stderr


@pytest.mark.parametrize("fault, place", [("item-crash", "write_item"), ("item-abort", "write_item"),
                                          ("item-recursion", "write_item"), ("open-abort", "open"),
                                          ("seal-crash", "seal"), ("commit-crash", "commit"), ("read-crash", "read")])
def test_a_crash_leaves_a_sentence(crossdock, modules, sources, tmp_path, fault, place):
    done = convert(crossdock, modules, sources["reader"], tmp_path / "out", fault)
    assert done.returncode < 0
    assert f"crashed in {place} (SIG" in done.stderr
    assert ("nothing was published" in done.stderr) == (place != "open")  # where there is no DST yet


@pytest.mark.parametrize("fault, place", [("item-exit", "write_item"), ("open-exit", "open"), ("plan-exit", "plan")])
def test_exit_in_a_plugin_is_no_success(crossdock, modules, sources, tmp_path, fault, place):
    done = convert(crossdock, modules, sources["reader"], tmp_path / "out", fault)
    assert done.returncode == 1
    assert f"called exit() in {place}" in done.stderr


@pytest.mark.parametrize("fault, place", [("item-hang", "write_item"), ("open-hang", "open"), ("read-hang", "read")])
def test_a_call_that_does_not_end_is_told_after_ctrl_c(crossdock, modules, sources, tmp_path, fault, place):
    flags = ["--to", "flt", "--plugin-path", modules / "tests/validate/faulty", "--no-sync", "--progress", "none"]
    job = subprocess.Popen([crossdock.path, "convert", sources["reader"], tmp_path / "out", *flags], text=True,
                           env={**crossdock.env, "CROSSDOCK_TEST_FAULT": fault}, stderr=subprocess.PIPE,
                           preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    try:
        time.sleep(1)
        job.send_signal(signal.SIGINT)
        line = job.stderr.readline()
        job.send_signal(signal.SIGINT)
        assert job.wait(20) == 130
    finally:
        job.kill()
    assert f"in {place} (" in line and "Ctrl-C again ends at once" in line
