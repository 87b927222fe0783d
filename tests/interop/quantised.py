# SPDX-License-Identifier: Apache-2.0
"""Quantised checkpoints of random codes, and what the reference libraries make of them.

    for name, make in CASES.items():
        case = make()         # the same in every run
        case.tensors          # what the safetensors file holds
        case.config           # config.json's quantization_config
        case.expected(dtype)  # the plain model's tensors
"""
from functools import partial

import quantised_bnb
import quantised_ct
import quantised_fp8
import quantised_gptq
import quantised_modelopt
import quantised_mx
from quantised_case import Quantised  # noqa: F401

MODULES = (quantised_fp8, quantised_mx, quantised_ct, quantised_modelopt, quantised_bnb, quantised_gptq)
CASES = {name: partial(make, name) for module in MODULES for name, make in module.CASES.items()}
