# SPDX-License-Identifier: Apache-2.0
"""Train a Hugging Face model with DeepSpeed, starting from a folder that crossdock converted.

    torchrun --nproc_per_node=2 train.py UNIVERSAL --out checkpoints            # begins with the converted weights
    torchrun --nproc_per_node=2 train.py UNIVERSAL --out checkpoints --resume   # goes on from its own checkpoint

UNIVERSAL is what `crossdock convert MODEL UNIVERSAL --to universal` wrote. See README.md beside this file.
"""
import argparse
import json
import os
import sys
from pathlib import Path

import deepspeed
import torch
from transformers import AutoConfig, AutoModelForCausalLM

HERE = Path(__file__).parent


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("universal", type=Path, help="the folder that crossdock wrote")
    parser.add_argument("--out", type=Path, required=True, help="where the job keeps its own checkpoints")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in OUT")
    parser.add_argument("--stage", type=int, choices=(1, 2, 3), help="ZeRO stage (default: what ds_config.json says)")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)  # the deepspeed launcher passes it
    return parser.parse_args()


def check_against_report(model, universal):
    """Compares the model with what was converted, before anything is loaded.

    ZeRO-3 never looks at shapes: it flattens. One parameter of another shape, such as an embedding that was resized, would
    silently shift every parameter behind it. A parameter that the job has and the folder lacks would fail only later.
    """
    report = json.loads((universal / "crossdock.json").read_text())
    converted = {parameter["name"]: parameter["shape"] for parameter in report["parameters"]}
    wrong = [f"{name}: the model has {list(p.shape)}, the folder {converted.get(name, 'nothing')}"
             for name, p in model.named_parameters() if p.requires_grad and converted.get(name) != list(p.shape)]
    if wrong:
        raise SystemExit(f"{universal} does not fit this model:\n  " + "\n  ".join(wrong))


def batches(vocabulary, size):
    """Stands for your data: the same random tokens in every step."""
    tokens = torch.randint(0, vocabulary, (size, 16), generator=torch.Generator().manual_seed(7))
    while True:
        yield tokens


def leave(device):
    """Ends a rank whose work is done.

    On a CPU the ranks talk through gloo, whose threads destroy_process_group() does not end: DeepSpeed's parameters keep the
    groups. If one frees a tensor of the last collective while Python (before 3.14) shuts down, torch 2.13 aborts, "terminate
    called without an active exception", and the launcher says that the job failed. So on a CPU a rank ends without Python's
    shutdown; that also skips what you registered with atexit, so call such things before.
    """
    torch.distributed.destroy_process_group()
    if device.type == "cpu":
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def main():
    args = parse_arguments()
    ds_config = json.loads((HERE / "ds_config.json").read_text())
    if args.stage:
        ds_config["zero_optimization"]["stage"] = args.stage
    # Universal loading is for the first start only. Left on, it would take a resumed job back to step 0.
    ds_config["checkpoint"]["load_universal"] = not args.resume

    # The converted folder holds config.json too. The weights made here are random; all of them are replaced below.
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(args.universal), dtype=torch.bfloat16)
    check_against_report(model, args.universal)
    engine, *_ = deepspeed.initialize(model=model, model_parameters=model.parameters(), config=ds_config)
    loaded, _ = engine.load_checkpoint(args.out if args.resume else args.universal)
    if loaded is None:
        raise SystemExit(f"found no checkpoint in {args.out if args.resume else args.universal}")

    data = batches(model.config.vocab_size, engine.train_micro_batch_size_per_gpu())
    for _ in range(args.steps):
        tokens = next(data).to(engine.device)
        loss = engine(input_ids=tokens, labels=tokens).loss
        engine.backward(loss)
        engine.step()
        if torch.distributed.get_rank() == 0:
            print(f"step {engine.global_steps} loss {loss.item():.6f}", flush=True)

    engine.save_checkpoint(args.out)
    leave(engine.device)


if __name__ == "__main__":
    main()
