# SPDX-License-Identifier: Apache-2.0
"""--ds-config: DeepSpeed runs the very same file, and the shards change nothing of what it makes of it."""
import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from recipes import PLAIN, Source

HERE = Path(__file__).parent
WORLD = 2
FP32 = Source(tied=False, sharded=False, dtype="fp32")
BF16 = {"bf16": {"enabled": True}}
ONE_GROUP = [[[], {}]]
TORCH = {"torch_adam": True}


@dataclass(frozen=True)
class Case:
    name: str
    params: object = None  # of the optimizer; text is put in the file as it stands
    type: str = "AdamW"
    zero: dict = field(default_factory=dict)
    more: dict = field(default_factory=lambda: BF16)
    flags: tuple = ()
    groups: list = field(default_factory=lambda: ONE_GROUP)
    trainer: dict = None
    script: tuple = None

    @property
    def dtype(self):
        return "bf16" if self.trainer or self.more.keys() & {"bf16", "bfloat16"} else "fp32"

    def text(self):
        """The file. Its numbers are as a person writes them."""
        config = {"train_micro_batch_size_per_gpu": 2, "steps_per_print": 10**9, "gradient_clipping": 0.0,
                  "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 100, **self.zero},
                  "optimizer": {"type": self.type, "params": "PARAMS"}, **self.more}
        if self.script:
            del config["optimizer"]
        params = self.params if isinstance(self.params, str) else json.dumps(self.params)
        return json.dumps(config, indent=2).replace('"PARAMS"', params)


def scheduler(kind, **params):
    return {**BF16, "scheduler": {"type": kind, "params": params}}


AUTO = {key: "auto" for key in ("lr", "betas", "eps", "weight_decay")}
TRAINER = dict(learning_rate=3e-3, adam_beta1=0.8, adam_beta2=0.95, adam_epsilon=1e-6, weight_decay=0.05, bf16=True)
TRAINER_FLAGS = ("--lr", "3e-3", "--betas", "0.8,0.95", "--eps", "1e-6", "--weight-decay", 0.05, "--dtype", "bf16")
AUTO_PRECISION = {"bf16": {"enabled": "auto"}, "fp16": {"enabled": "auto", "initial_scale_power": "auto"}}
CASES = [
    # torch's classes: what is left out, spelled oddly, or told
    Case("torch-adamw", {"lr": 2e-3, **TORCH}),
    Case("torch-adamw-by-adam", {"lr": 2e-3, "weight_decay": 0.1, **TORCH}, type="Adam"),
    Case("torch-adam", '{"lr": 2E-3, "weight_decay": 1, "eps": 1e-6, "betas": [5E-1, 9.5e-1], "torch_adam": true, "adam_w_mode": false}', type="ADAM"),
    Case("torch-options", {"lr": 2e-3, "foreach": False, "maximize": True, "amsgrad": False, **TORCH}),
    Case("whole-lr", '{"lr": 1, "weight_decay": 0, "torch_adam": true}'),
    Case("adam-w-mode-is-not-adamws", {"lr": 2e-3, "adam_w_mode": False, **TORCH}),
    # sub-groups and precision
    Case("sub-groups", '{"lr": 0.2e-2, "torch_adam": 1}', zero={"sub_group_size": 5e3}),
    Case("sub-group-each", {"lr": 2e-3, **TORCH}, zero={"sub_group_size": 0}),
    Case("fp32", {"lr": 2e-3, **TORCH}, more={}),
    Case("bfloat16-of-old", {"lr": 2e-3, **TORCH}, more={"bfloat16": {"enabled": True}, "bf16": None}),
    # DeepSpeed's own classes, which have other defaults
    Case("fused", {"lr": 2e-3, "betas": [0, 0.99]}),
    Case("fused-by-adam", {"lr": 2e-3, "adam_w_mode": False, "weight_decay": 0.1, "bias_correction": False, "set_grad_none": True}, type="Adam"),
    Case("cpu", {"lr": 2e-3, "weight_decay": 0.1}, zero={"offload_optimizer": {"device": "cpu"}}),
    Case("cpu-of-old", {"lr": 2e-3, "bias_correction": False}, zero={"cpu_offload": True}, more={}),
    Case("torch-with-offload", {"lr": 2e-3, **TORCH}, zero={"offload_optimizer": {"device": "none"}, "offload_param": {"device": "cpu"}}),
    # schedulers set the lr of the first step
    Case("warmup", {"lr": 2e-3, **TORCH}, more=scheduler("WarmupLR", warmup_num_steps=3)),
    Case("warmup-from", {"lr": 2e-3, **TORCH}, more=scheduler("WarmupDecayLR", warmup_min_lr=1e-3, warmup_max_lr=2e-3, total_num_steps=9, warmup_num_steps=3)),
    Case("cosine", {"lr": 2e-3, **TORCH}, more=scheduler("WarmupCosineLR", total_num_steps=9, warmup_num_steps=3, warmup_min_ratio=0.5)),
    Case("range-test", {"lr": 2e-3, **TORCH}, more=scheduler("LRRangeTest", lr_range_test_min_lr=1e-4, lr_range_test_step_size=2)),
    Case("range-test-default", {"lr": 2e-3, **TORCH}, more=scheduler("LRRangeTest")),
    Case("one-cycle", {"lr": 2e-3, **TORCH}, more=scheduler("OneCycle", cycle_min_lr=1e-4, cycle_max_lr=1e-3, cycle_momentum=False)),
    Case("one-cycle-betas", {"lr": 2e-3, **TORCH}, more=scheduler("OneCycle", cycle_min_lr=1e-4, cycle_max_lr=1e-3), flags=("--betas", "0.8,0.99")),
    # groups of the job's own
    Case("groups", {"lr": 2e-3, "weight_decay": 0.1, **TORCH}, groups=[[["norm", "bias"], {"weight_decay": 0.0}], [[], {}]]),
    Case("groups-of-lr", {"lr": 2e-3, "weight_decay": 0.1, **TORCH}, groups=[[["embed"], {"lr": 1e-4}], [[], {"lr": 1e-3, "weight_decay": 0.0}]]),
    Case("groups-warmup", {"lr": 2e-3, **TORCH}, more=scheduler("WarmupLR", warmup_min_lr=[1e-3, 0.0], warmup_num_steps=3),
         groups=[[["embed"], {"lr": 1e-2}], [[], {}]]),
    # what the HF Trainer fills in
    Case("trainer", {**AUTO, **TORCH}, more=AUTO_PRECISION, trainer=TRAINER, flags=TRAINER_FLAGS),
    Case("trainer-fused", AUTO, more=AUTO_PRECISION, trainer=TRAINER, flags=TRAINER_FLAGS),
    Case("trainer-warmup", {**AUTO, **TORCH}, more={**AUTO_PRECISION, **{k: v for k, v in scheduler("WarmupLR", warmup_min_lr="auto", warmup_max_lr="auto",
         warmup_num_steps=3).items() if k != "bf16"}}, trainer=TRAINER, flags=("--lr", 0, *TRAINER_FLAGS[2:])),
    # an optimizer of the script's own; an offloaded one must be DeepSpeed's
    Case("script", script=("AdamW", {"lr": 3e-3, "weight_decay": 0.05}), flags=("--lr", 3e-3, "--weight-decay", 0.05)),
    Case("script-offload", script=("DeepSpeedCPUAdam", {"lr": 3e-3}), flags=("--lr", 3e-3, "--weight-decay", 0), zero={"offload_optimizer": {"device": "cpu"}}),
    Case("script-offload-torch", script=("AdamW", {"lr": 3e-3}), flags=("--lr", 3e-3, "--weight-decay", 0.01), zero={"offload_optimizer": {"device": "cpu"}},
         more={**BF16, "zero_force_ds_cpu_optimizer": False}),
    # what the judge must see
    Case("control", {"lr": 2e-3, **TORCH}, flags=("--lr", 0.5)),
]


def textproto(groups):
    return "\n".join("group { " + " ".join([*(f"parameter: '{part}'" for part in parts), *(f"{k}: {v}" for k, v in own.items())]) + " }"
                     for parts, own in groups)


@pytest.fixture(scope="module")
def verdicts(crossdock, source, torchrun, tmp_path_factory):
    root, cases = tmp_path_factory.mktemp("ds-config"), []
    for case in CASES:
        config, out = root / f"{case.name}.json", root / case.name
        config.write_text(case.text())
        flags = list(case.flags)
        if case.groups != ONE_GROUP:
            (root / f"{case.name}.groups").write_text(textproto(case.groups))
            flags += ["--param-groups", root / f"{case.name}.groups"]
        model = source(FP32 if case.dtype == "fp32" else PLAIN)
        crossdock("convert", model, out, "--to", "zero3", "--world-size", WORLD, "--ds-config", config, "--no-sync", *flags)
        cases.append({"name": case.name, "hf": str(model), "config": str(config), "trainer": case.trainer, "dtype": case.dtype,
                      "script": case.script, "groups": case.groups, "folder": str(out)})
    (root / "cases.json").write_text(json.dumps(cases))
    torchrun(WORLD, HERE / "ds_config_judge.py", root / "cases.json", root / "verdicts.json", timeout=1500)
    return json.loads((root / "verdicts.json").read_text())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_same_file_in_deepspeed(verdicts, case):
    for verdict in verdicts[case.name]:
        assert verdict["path"]
        if case.name == "control":
            assert verdict["loaded"]["groups"] != verdict["job"]["groups"] and verdict["loss_difference"] > 1e-3
            continue
        assert verdict["loaded"] == verdict["job"]
        assert verdict["loss_difference"] <= 1e-6, verdict


# ---- fp16, which DeepSpeed refuses on a CPU: its own reading of the file, and the loss scaler that it makes of it
@pytest.mark.parametrize("fp16", [
    {}, {"initial_scale_power": 12, "loss_scale_window": 77, "hysteresis": 3}, {"loss_scale": 0.0, "min_loss_scale": 4, "consecutive_hysteresis": True},
    {"loss_scale": 128}, {"loss_scale": 0.5, "initial_scale_power": 3}, {"loss_scale": "auto", "min_loss_scale": "auto", "loss_scale_window": 1e2}],
    ids=lambda fp16: "-".join(fp16) or "default")
def test_loss_scale(crossdock, source, tmp_path, fp16):
    from deepspeed.runtime.fp16.loss_scaler import CreateLossScaler
    from deepspeed.runtime.precision_config import get_float16_config
    config = {"fp16": {"enabled": True, **fp16}, "zero_optimization": {"stage": 3}, "optimizer": {"type": "AdamW", "params": {"lr": 1e-3}}}
    (tmp_path / "job.json").write_text(json.dumps(config))
    crossdock("convert", source(PLAIN), tmp_path / "out", "--to", "zero3", "--world-size", 1, "--ds-config", tmp_path / "job.json")
    [file] = (tmp_path / "out/global_step0").glob("zero_pp_rank_0_mp_rank_00_optim_states.pt")
    state = torch.load(file, weights_only=False)["optimizer_state_dict"]
    theirs = get_float16_config(config)
    expected = CreateLossScaler(torch.half, theirs.loss_scale, theirs.loss_scale == 0, theirs.dynamic_loss_scale_args())
    assert type(state["loss_scaler"]) is type(expected) and state["loss_scaler"].__dict__ == expected.__dict__
    assert state["dynamic_loss_scale"] is expected.dynamic


# ---- what crossdock refuses, DeepSpeed refuses, or nobody has filled in yet
def refused(crossdock, source, tmp_path, text, *flags, code=1):
    (tmp_path / "job.json").write_text(text)
    error = crossdock("convert", source(PLAIN), tmp_path / "out", "--to", "zero3", "--world-size", 2, "--ds-config", tmp_path / "job.json",
                      *flags, code=code).stderr
    assert not (tmp_path / "out").exists()
    return error


@pytest.mark.parametrize("case,missing", [(case, i) for case in CASES if case.trainer and case.name != "trainer-warmup"
                                          for i in range(0, len(TRAINER_FLAGS), 2)], ids=lambda v: v.name if isinstance(v, Case) else TRAINER_FLAGS[v])
def test_auto_asks_for_its_flag(crossdock, source, tmp_path, case, missing):
    flags = TRAINER_FLAGS[:missing] + TRAINER_FLAGS[missing + 2:]
    error = refused(crossdock, source, tmp_path, case.text(), *flags)
    key = {"--dtype": "bf16.enabled"}.get(TRAINER_FLAGS[missing], "optimizer.params." + TRAINER_FLAGS[missing][2:].replace("-", "_"))
    assert f"{key} is \"auto\", which the job's launcher fills in: give {TRAINER_FLAGS[missing]} [" in error


ACCEPTED = ('{"train_micro_batch_size_per_gpu": 1, "optimizer": {"type": "AdamW", "params": {"lr": 1e-3, "weight_decay": 0, "torch_adam": true}}, '
            '"bf16": {"enabled": true}, "zero_optimization": {"stage": 3}}')


@pytest.mark.parametrize("old, new", [
    ('"lr": 1e-3', '"lr": 1e-3, "lr": 1e-4'),
    ('"zero_optimization": {"stage": 3}', '"zero_optimization": {"stage": 3}, "zero_optimization": {"stage": 3}'),
    ('"bf16": {"enabled": true}', '"bf16": {"enabled": true}, "fp16": {"enabled": true}'),
    ('"stage": 3', '"stage": 3, "offload_optimizer": {"device": "gpu"}'),
    ('"stage": 3', '"stage": 3, "sub_group_size": 1.5'),
    ('{"stage": 3}', '7'), (ACCEPTED, '[1]'), (ACCEPTED, '{')])
def test_files_that_deepspeed_refuses(crossdock, source, tmp_path, old, new):
    """One change of a file that both take, so that nothing else can be the reason."""
    from deepspeed.runtime.config import DeepSpeedConfig
    (tmp_path / "job.json").write_text(ACCEPTED)
    DeepSpeedConfig(str(tmp_path / "job.json"))
    crossdock("convert", source(PLAIN), tmp_path / "accepted", "--to", "zero3", "--world-size", 2, "--ds-config", tmp_path / "job.json")
    error = refused(crossdock, source, tmp_path, ACCEPTED.replace(old, new))
    assert "--ds-config: expected " in error and "stage 3 for --to zero3" not in error
    with pytest.raises(Exception):
        DeepSpeedConfig(str(tmp_path / "job.json"))


def test_sources_are_told(crossdock, source, tmp_path):
    convert = ["convert", source(PLAIN), tmp_path / "out", "--to", "zero3", "--world-size", 2]
    error = crossdock(*convert, code=1).stderr
    assert "give --ds-config FILE (its DeepSpeed config), or --lr and --weight-decay" in error and not (tmp_path / "out").exists()
    assert "no such file" in crossdock(*convert, "--ds-config", tmp_path / "none.json", code=2).stderr
    # What is wrong with the model comes first.
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "model.safetensors").symlink_to(source(PLAIN) / "model.safetensors")
    assert "config.json" in crossdock("convert", empty, tmp_path / "out", "--to", "zero3", "--world-size", 2, code=1).stderr
    (tmp_path / "job.json").write_text(Case("told", {"lr": 2e-5}).text())
    done = crossdock(*convert, "--ds-config", tmp_path / "job.json")
    assert "of DeepSpeed's FusedAdam, lr 2e-05, betas 0.9,0.999, eps 1e-08, weight_decay 0;" in done.stdout
    report = json.loads((tmp_path / "out/crossdock.json").read_text())
    assert report["writer"]["options"]["ds-config"] == str(tmp_path / "job.json")
