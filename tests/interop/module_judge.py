# SPDX-License-Identifier: Apache-2.0
"""Whether what crossdock writes of a Hugging Face folder is the module that transformers runs: names, order, values."""
import json
import os

import torch
from safetensors.torch import save_file

OPTIMIZER = ("--lr", 1e-3, "--weight-decay", 0.01)


def save(folder, model, tensors):
    folder.mkdir(parents=True, exist_ok=True)
    config = json.loads(model.config.to_json_string()) | {"architectures": [type(model).__name__]}
    (folder / "config.json").write_text(json.dumps(config))
    save_file({n: x.detach().clone().contiguous() for n, x in tensors.items()}, folder / "model.safetensors")


def universal(folder):
    zero = folder / "global_step0/zero"
    return {os.path.relpath(here, zero): torch.load(os.path.join(here, "fp32.pt"))["param"]
            for here, _, files in os.walk(zero) if "fp32.pt" in files}


def check_universal(crossdock, folder, out, model, *flags):
    """Exactly named_parameters(), by name, shape and value; gives what was said."""
    done = crossdock("convert", folder, out, "--to", "universal", "--no-sync", *flags)
    found, want = universal(out), dict(model.named_parameters())
    assert set(found) == set(want)
    for name, parameter in want.items():
        assert torch.equal(found[name], parameter.detach().float()), name
    return done.stdout + done.stderr


def check_both(crossdock, folder, out, model):
    said = check_universal(crossdock, folder, out / "universal", model)
    crossdock("convert", folder, out / "zero3", "--to", "zero3", "--world-size", 1, *OPTIMIZER, "--no-sync")
    states = torch.load(out / "zero3/global_step0/zero_pp_rank_0_mp_rank_00_model_states.pt", weights_only=False)
    optimizer = torch.load(out / "zero3/global_step0/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt", weights_only=False)
    assert [n for shapes in states["param_shapes"] for n in shapes] == [n for n, _ in model.named_parameters()]
    flat = torch.cat([p.detach().reshape(-1).float() for p in model.parameters()])
    assert torch.equal(torch.cat(optimizer["optimizer_state_dict"]["fp32_flat_groups"]), flat)
    return said
