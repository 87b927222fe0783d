# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of training loops, as torch.save writes them: which dict is the model, and values of any class beside it. torch.load says
what the model's tensors are."""
import argparse
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import io
import pathlib
import re
import types
import uuid
import zipfile
from collections import ChainMap, Counter, OrderedDict, defaultdict, deque, namedtuple

import numpy as np
import pytest
import torch
import torch._utils

from test_bin import described, inspected, module, views


# ---- values of any class beside the model
class Color(enum.Enum):
    RED = 1


class Flags(enum.IntFlag):
    A = 1
    B = 2


@dataclasses.dataclass
class Settings:
    lr: float = 0.1
    path: pathlib.Path = pathlib.PosixPath("/x")

    class Inner:
        pass


@dataclasses.dataclass(frozen=True)
class Frozen:
    names: tuple = ("a", "b")


class Slots:
    __slots__ = ("a", "b")

    def __init__(self):
        self.a, self.b = 1, [2]


class Stateful:
    def __getstate__(self):
        return {"t": torch.ones(3)}

    def __setstate__(self, state):
        raise AssertionError("nothing is run")


class MyDict(dict):
    pass


class MyList(list):
    pass


class MyOrderedDict(OrderedDict):
    pass


class KeywordsOnly:
    """Made anew by copyreg.__newobj_ex__."""

    def __new__(cls, *, x):
        return super().__new__(cls)

    def __getnewargs_ex__(self):
        return (), {"x": 1}


Point = namedtuple("Point", "x y")


def circle():
    out = types.SimpleNamespace(name="me")
    out.me, out.all = out, (out, [out])
    return out


def tuple_in_itself(n):
    inner = MyList()
    out = (inner,) + (0,) * (n - 1)
    inner.append(out)
    return out


BESIDE = {
    "Namespace": lambda: argparse.Namespace(lr=0.1, device=torch.device("cpu"), betas=(0.9, 0.99), nested=argparse.Namespace(x=None)),
    "numpy": lambda: {"float": np.float64(0.9), "int": np.int32(7), "array": np.arange(12.0).reshape(3, 4), "dtype": np.dtype("f4"),
                      "state": np.random.RandomState(1).get_state(), "object": np.array([{}, None], dtype=object),
                      "text": np.array(["a", "bc"]), "time": np.datetime64("2020-01-01"), "record": np.zeros(2, "f4,i8"),
                      "generator": np.random.default_rng(1)},
    "numpy scalar": lambda: np.float64(0.5),
    "paths": lambda: [pathlib.PosixPath("/x/y"), pathlib.PurePosixPath("a")],
    "enums": lambda: (Color.RED, Flags.A | Flags.B, Color),
    "dataclasses": lambda: {"a": Settings(), Frozen(): Frozen(), "inner": Settings.Inner(), "method": Settings().path.joinpath},
    "dates": lambda: [datetime.datetime.now(datetime.timezone.utc), datetime.timedelta(1), datetime.date(2020, 1, 1)],
    "slots": Slots,
    "state": Stateful,
    "keywords": lambda: KeywordsOnly(x=1),
    "functools": lambda: functools.partial(functools.partial(max, 1), key=len),
    "builtins": lambda: [range(3), slice(1, 2), frozenset({1}), {1, 2}, 1j, bytearray(b"x"), b"\0\xff", len, int, Exception("x"),
                         NotImplemented, ..., "".join, 2**5000, -2**5000, 2**63, -2**63],
    "containers": lambda: [MyDict(a=torch.ones(1)), MyList([1, torch.ones(1)]), MyOrderedDict(a=1), defaultdict(list, a=[1]), Counter("ab"),
                           deque([1, 2], 5), ChainMap({"a": 1}), Point(1, torch.ones(1)), types.SimpleNamespace(a=1)],
    "numbers": lambda: [decimal.Decimal("1.5"), fractions.Fraction(1, 3), uuid.uuid4(), re.compile("a+")],
    "modules": lambda: [module(), torch.nn.MultiheadAttention(4, 2), torch.nn.CrossEntropyLoss(torch.ones(3)), torch.nn.GELU()],
    "optimizers": lambda: torch.optim.AdamW(module().parameters()),
    "torch": lambda: [torch.float32, torch.int1, torch.strided, torch.device("cuda:1"), torch.Size([1]), torch.nn.Linear,
                      torch.per_tensor_affine],
    "tensors of other kinds": lambda: [torch.ones(2).to_sparse(), torch.ones(2, 2).to_sparse_csr(), torch.empty(2, device="meta"),
                                       torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
                                       torch.quantize_per_channel(torch.ones(2, 2), torch.ones(2), torch.zeros(2), 0, torch.quint8)],
    "callbacks by class": lambda: {torch.nn.Linear: {"best": torch.ones(1)}, Settings: {"wait": 1}},
    "circle": circle,
    "tuples in themselves": lambda: [tuple_in_itself(n) for n in (1, 2, 3, 5)],
    "file": lambda: io.BytesIO(b"bytes"),
}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("what", BESIDE)
def test_values_beside_the_model(crossdock, tmp_path, what, legacy):
    if legacy and what == "tensors of other kinds":
        pytest.skip("where the storages of a legacy file lie is known when their types are")
    path = tmp_path / "x.pt"
    torch.save({"args": BESIDE[what](), "model": views(), "epoch": 3}, path, _use_new_zipfile_serialization=not legacy)
    assert inspected(crossdock, path) == described(views())
    Stateful.__setstate__ = lambda self, state: None  # for torch alone
    assert described(torch.load(path, weights_only=False)["model"]) == described(views())


@pytest.mark.parametrize("protocol", [2, 3])
def test_all_of_them_in_one_file(crossdock, tmp_path, protocol):
    torch.save({"model": views(), **{what: make() for what, make in BESIDE.items()}}, tmp_path / "x.pt", pickle_protocol=protocol)
    done = crossdock("inspect", tmp_path / "x.pt")
    assert '"model" is taken as the model, and not what lies beside it: "Namespace" ("argparse.Namespace"), "numpy" (' in done.stderr
    assert 'and 8 more; --state-dict-path chooses another' in done.stderr
    assert inspected(crossdock, tmp_path / "x.pt") == described(views())


IN_MODEL = {
    "module": (lambda: torch.nn.Linear(2, 2), 'an object of the class "torch.nn.modules.linear.Linear"'),
    "array": (lambda: np.ones(2), "a numpy value: save it as a tensor"),
    "arrays": (lambda: types.SimpleNamespace(a=[np.ones(2)]), 'an object of the class "types.SimpleNamespace"'),
    "dict": (lambda: MyDict(a=torch.ones(1)), '"test_bin_checkpoints.MyDict"'),
    "named tuple": (lambda: Point(1, torch.ones(1)), '"test_bin_checkpoints.Point"'),
    "sparse": (lambda: torch.ones(2).to_sparse(), "a sparse tensor: save its to_dense()"),
    "csr": (lambda: torch.ones(2, 2).to_sparse_csr(), "a sparse tensor: save its to_dense()"),
    "meta": (lambda: torch.empty(2, device="meta"), "a tensor on the meta device"),
    "quantised": (lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), "a quantised tensor: save its dequantize()"),
    "quantised parameter": (lambda: torch.nn.Parameter(torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), False),
                            "a quantised tensor: save its dequantize()"),
    "class of tensor": (lambda: torch.ones(2).as_subclass(Subclass), 'an object of the class "test_bin_checkpoints.Subclass"'),
    "storage": (lambda: torch.ones(2).untyped_storage(), "found one in a storage"),
    "set": (lambda: {torch.ones(1)}, "found one in a list"),
}


class Subclass(torch.Tensor):
    pass


@pytest.mark.parametrize("what", IN_MODEL)
def test_values_of_other_classes_in_the_model_are_refused(crossdock, tmp_path, what):
    make, message = IN_MODEL[what]
    for where, value in (("x", {"a.weight": torch.ones(2), "x": make()}), ("b.x", {"model": {"a.weight": torch.ones(2), "b": {"x": make()}}})):
        torch.save(value, tmp_path / "x.pt")
        error = crossdock.convert(tmp_path / "x.pt", tmp_path / "out", code=1).stderr
        assert message in error and f'"{where}"' in error and not (tmp_path / "out").exists()


def test_plain_values_in_the_model_are_left_out(crossdock, tmp_path):
    extra = {"seen": np.int64(7), "args": argparse.Namespace(), "color": Color.RED, "n": 3}
    torch.save({"a.weight": torch.ones(2), **extra}, tmp_path / "x.pt")
    done = crossdock("inspect", tmp_path / "x.pt")
    assert '4 entries of the state dict are no tensors and are left out: "seen", "args", "color", ...' in done.stderr
    assert inspected(crossdock, tmp_path / "x.pt") == described({"a.weight": torch.ones(2)})


class OnDevice:
    """What torch.save writes for a tensor of a device that torch knows only from outside, as XLA."""

    def __init__(self, tensor, dtype=None):
        self.args = (tensor, dtype or tensor.dtype, "cpu", False)

    def __reduce__(self):
        return torch._utils._rebuild_device_tensor_from_cpu_tensor, self.args


def test_tensors_of_other_devices(crossdock, tmp_path):
    torch.save({name: OnDevice(t) for name, t in views().items()}, tmp_path / "x.pt")
    assert inspected(crossdock, tmp_path / "x.pt") == described(torch.load(tmp_path / "x.pt", weights_only=True)) == described(views())
    torch.save({"w": OnDevice(torch.ones(2), torch.float16)}, tmp_path / "y.pt")
    assert "found one that loading casts to F16" in crossdock("inspect", tmp_path / "y.pt", code=1).stderr


# ---- which dict is the model
def state():
    return module().state_dict()


def averaged():
    return {name: t + 1 for name, t in state().items()}


def adam(n=1):
    net = module()
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.arange(8)).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


KNOWN = {
    "nanoGPT": lambda sd: {"model": sd, "optimizer": adam(), "model_args": {"n": 1}, "iter_num": 10, "best_val_loss": torch.tensor(1.4)},
    "tutorial": lambda sd: {"epoch": 3, "model_state_dict": sd, "optimizer_state_dict": adam(), "loss": torch.tensor(0.4)},
    "timm": lambda sd: {"epoch": 1, "arch": "vit", "state_dict": sd, "optimizer": adam(), "args": argparse.Namespace(lr=1),
                        "state_dict_ema": averaged(), "metric": np.float64(0.7)},
    "BasicSR": lambda sd: {"params": sd, "params_ema": averaged()},
    "BasicSR, ema alone": lambda sd: {"params_ema": sd},
    "Lightning": lambda sd: {"epoch": 1, "pytorch-lightning_version": "2.0", "state_dict": sd, "loops": {"x": {"y": torch.ones(1)}},
                             "callbacks": {"EMA": {"a.weight": torch.ones(1)}}, "optimizer_states": [adam()],
                             "hyper_parameters": argparse.Namespace(a=1)},
    "fairseq": lambda sd: {"args": argparse.Namespace(arch="x"), "cfg": Settings(), "model": sd, "criterion": {"head.weight": torch.ones(1)},
                           "last_optimizer_state": adam(), "extra_state": {"metrics": {}, "rng": torch.get_rng_state()}},
    "DeepSpeed": lambda sd: {"module": sd, "buffer_names": ["1.running_mean"], "optimizer": None, "ds_version": "0.19", "mp_world_size": 1,
                             "param_shapes": [OrderedDict(a=torch.Size([2]))], "frozen_param_fragments": {"a.weight": torch.ones(2)}},
    "Megatron": lambda sd: {"model": sd, "checkpoint_version": 3.0, "iteration": 5, "args": argparse.Namespace(tensor_model_parallel_size=1),
                            "optimizer": {"optimizer": adam(), "fp32_from_fp16_params": [[torch.ones(2)]]}, "rng_state": [torch.ones(1)]},
    "Composer": lambda sd: {"state": {"model": sd, "optimizers": {"AdamW": adam()}, "callbacks": {}}, "rng": [{"torch": torch.ones(1)}]},
    "GAN's generator": lambda sd: {"generator": sd},
    "mmengine": lambda sd: {"meta": {"time": datetime.datetime.now()}, "state_dict": sd, "message_hub": Slots(), "ema_state_dict": averaged()},
    "rng state": lambda sd: {"model": sd, "rng_state": torch.get_rng_state(), "cuda_rng_state": [torch.get_rng_state()]},
    "one dict twice": lambda sd: {"model": sd, "state_dict": sd},
    "defaultdict": lambda sd: defaultdict(dict, net=defaultdict(None, sd)),
    "top level": lambda sd: sd,
    "top level and optimizer": lambda sd: {**sd, "optimizer": adam(), "epoch": 1},
}


@pytest.mark.parametrize("kind", KNOWN)
def test_known_checkpoints(crossdock, tmp_path, kind):
    torch.save(KNOWN[kind](state()), tmp_path / "x.pt")
    assert inspected(crossdock, tmp_path / "x.pt") == described(state())


def test_the_note_of_an_average(crossdock, tmp_path):
    torch.save(KNOWN["BasicSR"](state()), tmp_path / "x.pt")
    done = crossdock.convert(tmp_path / "x.pt", tmp_path / "out")
    assert '"params" is taken as the model, and not what lies beside it: "params_ema" (' in done.stdout + done.stderr
    assert inspected(crossdock, tmp_path / "x.pt", "--state-dict-path", "params_ema") == described(averaged())


@pytest.mark.parametrize("value, chosen", [
    (lambda: {"generator": state(), "discriminator": averaged(), "optim_g": adam()}, "generator"),
    (lambda: {"model": state(), "net": averaged()}, "net"),
    (lambda: {"mine": state(), "optimizer": adam(), "acc": 91.2}, "mine"),
    (lambda: {"student": state(), "teacher": averaged(), "dino_loss": {"center": torch.ones(2)}}, "teacher"),
    (lambda: {"model": state(), "lm_head": {"weight": torch.ones(2)}}, "lm_head"),
], ids=["GAN", "two names", "unknown", "DINO", "a part beside"])
def test_unclear_checkpoints(crossdock, tmp_path, value, chosen):
    torch.save(value(), tmp_path / "x.pt")
    error = crossdock.convert(tmp_path / "x.pt", tmp_path / "out", code=1).stderr
    assert "expected one dict that is clearly the model" in error and "--state-dict-path" in error and "optim" not in error
    n_elems = sum(t.numel() for t in value()[chosen].values())
    assert f'"{chosen}" ({len(value()[chosen])} tensors, {n_elems} elements)' in error
    assert inspected(crossdock, tmp_path / "x.pt", "--state-dict-path", chosen) == described(value()[chosen])


def test_the_whole_top_level(crossdock, tmp_path):
    torch.save({"encoder": {"w": torch.ones(2)}, "decoder": {"w": torch.zeros(3)}, "scale": torch.ones(1)}, tmp_path / "x.pt")
    assert "beside 1 tensor" in crossdock("inspect", tmp_path / "x.pt", code=1).stderr
    assert inspected(crossdock, tmp_path / "x.pt", "--state-dict-path", ".") == described(
        {"encoder.w": torch.ones(2), "decoder.w": torch.zeros(3), "scale": torch.ones(1)})


@pytest.mark.parametrize("beside, n", [({"mp_world_size": 2}, 2), ({"args": argparse.Namespace(tensor_model_parallel_size=4)}, 4),
                                       ({"args": argparse.Namespace(pipeline_model_parallel_size=8)}, 8)], ids=["deepspeed", "tp", "pp"])
def test_parts_of_a_model_are_refused(crossdock, tmp_path, beside, n):
    torch.save({"module": state(), **beside}, tmp_path / "x.pt")
    assert f"found one of its {n} model-parallel parts" in crossdock.convert(tmp_path / "x.pt", tmp_path / "out", code=1).stderr


def test_a_whole_module_where_the_model_is_looked_for(crossdock, tmp_path):
    torch.save({"epoch": 1, "model": module(), "optimizer": adam()}, tmp_path / "x.pt")
    error = crossdock.convert(tmp_path / "x.pt", tmp_path / "out", code=1).stderr
    assert 'expected a dict of tensors at "model", found an object of the class "torch.nn.modules.container.Sequential"' in error


def test_two_archives_in_one_zip_file(crossdock, tmp_path):
    for name, value in (("a", state()), ("b", averaged())):
        torch.save(value, tmp_path / f"{name}.pt")
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as out:
        for name in "ab":
            with zipfile.ZipFile(tmp_path / f"{name}.pt") as part:
                for item in part.infolist():
                    out.writestr(item.filename, part.read(item))
    with pytest.raises(RuntimeError, match="not in a subdirectory a/"):
        torch.load(tmp_path / "x.pt", weights_only=True)
    error = crossdock.convert(tmp_path / "x.pt", tmp_path / "out", code=1).stderr
    assert 'found two in one zip file, "a/data.pkl" and "b/data.pkl"' in error
