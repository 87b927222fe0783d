# SPDX-License-Identifier: Apache-2.0
"""What a training job of a model needs: memory of each GPU at every ZeRO stage, and the sizes of checkpoints.

The bytes for a parameter are DeepSpeed's own (estimate_zero2_model_states_mem_needs and its stage 3 twin), taken apart
and extended to stages 0 and 1, fp32 and frozen parameters; a test compares the sums with DeepSpeed's. Counted are the
states of the model with Adam. Activations, buffers of communication and the CUDA context come on top.
"""

from dataclasses import dataclass

from .count import Parameters
from .errors import ManifestError

STAGES = (0, 1, 2, 3)
OFFLOADS = ("none", "optimizer", "all")
HOST_FACTOR = 1.5  # DeepSpeed's additional_buffer_factor
# In the order in which a picture stacks them.
COMPONENTS = ("weights", "gathered layer", "gradients", "fp32 gradients", "fp32 master", "moments")


@dataclass(frozen=True)
class Precision:
    """Bytes of a parameter."""

    weight: int  # and of the gradient that the backward pass makes
    master: int
    moments: int  # both of Adam
    accumulates_fp32: bool = False  # gradients are kept in fp32 between micro-batches
    text: str = ""

    @property
    def is_mixed(self):
        return self.master > 0


PRECISIONS = {
    "bf16": Precision(
        2, 4, 8, text="bf16 (or fp16) weights and gradients, fp32 master and moments; the step makes fp32 gradients"
    ),
    "bf16-fp32-grads": Precision(2, 4, 8, True, "the same, with gradients accumulated in fp32 (grad_accum_dtype fp32)"),
    "fp32": Precision(4, 0, 8, text="fp32 weights, gradients and moments"),
}


@dataclass
class Need:
    """Of one way to train."""

    stage: int
    world_size: int
    components: dict  # {of COMPONENTS: bytes on each GPU}
    host: int  # bytes of memory of each node that offloading takes

    @property
    def gpu(self):
        return sum(self.components.values())


def need(p: Parameters, precision: Precision, stage, world_size, offload="none", gpus_per_node=8):
    """The Need of a model of these Parameters."""
    share = lambda n, from_stage: -(-n // world_size) if stage >= from_stage else n
    weight, trained = precision.weight, p.trainable
    gpu = dict.fromkeys(COMPONENTS, 0)
    gpu["weights"] = share(weight * p.total, 3)
    gpu["fp32 master"] = share(precision.master * trained, 1)
    gpu["moments"] = share(precision.moments * trained, 1)
    if precision.is_mixed:
        # Only those that are accumulated are there as a whole; the step makes its own of the share that it updates.
        gpu["fp32 gradients"] = share(4 * trained, 2 if precision.accumulates_fp32 else 1)
    if stage < 3 or not precision.is_mixed:
        gpu["gradients"] = share(weight * trained, 2)
    if stage == 3:  # its weights and gradients, while it computes; with mixed precision no other 16-bit gradients live
        gpu["gathered layer"] = 2 * weight * p.largest
    host = 0
    if offload != "none" and stage > 0:
        moved = ["fp32 gradients", "fp32 master", "moments", "gradients"]
        if offload == "all" and stage == 3:  # offload_param: of stage 3 only
            moved.append("weights")
        # 16-bit gradients leave for the host as they are made, into the fp32 ones.
        kept = [name for name in moved if not (precision.is_mixed and name == "gradients")]
        sharded_gpus = min(gpus_per_node, world_size)
        of_all = {
            "weights": weight * p.total,
            "fp32 gradients": 4 * trained if precision.is_mixed else 0,
            "gradients": weight * trained,
            "fp32 master": precision.master * trained,
            "moments": precision.moments * trained,
        }
        host = int(sum(of_all[name] for name in kept) * sharded_gpus / world_size * HOST_FACTOR)
        gpu.update(dict.fromkeys(moved, 0))
    return Need(stage, world_size, gpu, host)


def checkpoints(p: Parameters, precision: Precision):
    """[(what, bytes of its tensors)]: headers are a few percent of a small model, nothing of a large one."""
    rows = [
        ("the source's own weights", p.stored_bytes),
        ("safetensors or dcp, bf16", 2 * p.total + p.buffer_bytes),
        ("safetensors or dcp, fp32", 4 * p.total + p.buffer_bytes),
        ("universal (weights and moments in fp32)", 4 * p.total + 8 * p.trainable),
        ("zero3", 4 * p.total + 8 * p.trainable),
    ]
    own = 4 * p.trainable + precision.moments * p.trainable
    rows.append(("DeepSpeed's own, stages 1 and 2", precision.weight * p.total + own))
    rows.append(("DeepSpeed's own, stage 3", own + precision.weight * (p.total - p.trainable)))
    return rows


def smallest(p, precision, gpu_bytes, world_sizes, offload="none", gpus_per_node=8):
    """{stage: the fewest GPUs of those given on which it fits, or None}."""
    return {
        stage: next(
            (n for n in sorted(world_sizes) if need(p, precision, stage, n, offload, gpus_per_node).gpu <= gpu_bytes),
            None,
        )
        for stage in STAGES
    }


def size_of_gpu(text):
    """Bytes of "80", "80GiB", "80GB": without a unit GiB."""
    units = {"": 1 << 30, "GIB": 1 << 30, "GB": 10**9, "G": 1 << 30, "MIB": 1 << 20, "MB": 10**6}
    number = text.rstrip("GgIiBbMm ")
    try:
        size = float(number) * units[text[len(number) :].strip().upper()]
        if not 0 < size < 2**60:
            raise ValueError
        return int(size)
    except (ValueError, KeyError):
        raise ManifestError(f"expected a GPU's memory such as 80GiB, found {text}") from None


def world_sizes_of(text):
    """Of "1,8,64"."""
    try:
        sizes = sorted({int(part) for part in text.split(",")})
        if not 0 < sizes[0] <= sizes[-1] <= 10**6 or len(sizes) > 16:
            raise ValueError
        return sizes
    except ValueError:
        raise ManifestError(f"expected at most 16 numbers of GPUs such as 1,8,64, found {text}") from None
