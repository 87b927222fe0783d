# SPDX-License-Identifier: Apache-2.0
"""The manifest of a model checkpoint for other programs: read it, compare it, plan with it, describe a job's module.

    from crossdock_manifest import load, diff
    m = load("model.pb")                    # what `crossdock inspect SRC --manifest model.pb` wrote, or model.json
    m = load("org/name")                    # or any SRC: a folder, a file, a Hub name; runs crossdock itself
    m.tensors, m["lm_head.weight"].shape, m.config["hidden_size"]
    m.numpy("lm_head.weight")               # a read-only map of the source's own file: nothing is copied
    diff(m, load("other.pb"))               # what was added, removed, changed
    summary(m), parameters(m)               # a page for people; numbers of parameters

    python -m crossdock_manifest plan SRC   # memory of a training job at each ZeRO stage (--help lists all verbs)

`describe(model)` goes the other way: it makes the description of an nn.Module for `crossdock convert --target`.

Nothing but Python's standard library is needed; `.numpy` needs numpy, `describe` the job's own torch.
docs/manifest.md tells more.
"""

from .arrays import numpy
from .difference import Difference, diff
from .errors import ManifestError
from .job_module import DTYPES, build, describe, hf_trainer_groups
from .loading import load
from .count import Parameters, parameters
from .schema import DType, Manifest, Tensor
from .page import summary

__all__ = [
    "DTYPES",
    "DType",
    "Difference",
    "Manifest",
    "ManifestError",
    "Parameters",
    "Tensor",
    "build",
    "describe",
    "diff",
    "hf_trainer_groups",
    "load",
    "numpy",
    "parameters",
    "summary",
]
