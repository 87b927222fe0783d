// SPDX-License-Identifier: Apache-2.0

// So that the precompiled header, which main.cc cannot use, has something to compile.
#include "tests/catch.h"
