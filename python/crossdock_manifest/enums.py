# SPDX-License-Identifier: Apache-2.0
"""The enums of manifest.proto, which comments every value."""

from enum import IntEnum


class DType(IntEnum):
    DTYPE_UNSPECIFIED = 0
    BOOL = 1
    U8 = 2
    I8 = 3
    U16 = 4
    I16 = 5
    U32 = 6
    I32 = 7
    U64 = 8
    I64 = 9
    F16 = 10
    BF16 = 11
    F32 = 12
    F64 = 13
    F8_E4M3 = 14
    F8_E5M2 = 15
    F8_E4M3FNUZ = 16
    F8_E5M2FNUZ = 17
    F8_E8M0 = 18
    C32 = 19
    C64 = 20
    C128 = 21
    F4 = 22
    F6_E2M3 = 23
    F6_E3M2 = 24

    @property
    def bits(self):
        """Of one element."""
        return {1: 8, 22: 4, 23: 6, 24: 6, 19: 32, 20: 64, 21: 128}.get(self) or next(
            n for n in (64, 32, 16, 8) if str(n) in self.name
        )

    @property
    def is_float(self):
        return self.name.startswith(("F", "BF"))


class Role(IntEnum):
    ROLE_UNSPECIFIED = 0
    PARAMETER = 1
    BUFFER = 2
    OPTIMIZER_STATE = 3


class Training(IntEnum):
    TRAINING_UNSPECIFIED = 0
    TRAINABLE = 1
    FROZEN = 2


class Pattern(IntEnum):
    UNIQUE = 0
    REPLICATED = 1
    SHARDED = 2
    VOCAB = 3
    SUB_PARAMETERS = 4
    EXPERT = 5


class AuxKind(IntEnum):
    AUX_UNSPECIFIED = 0
    CONFIG = 1
    GENERATION_CONFIG = 2
    TOKENIZER = 3
    PROCESSOR = 4
    TRAINER = 5
