// SPDX-License-Identifier: Apache-2.0

// Loops that are compiled twice: for every processor, and for those with AVX2, BMI2 (whose shifts
// by a variable are one operation each) and F16C. What they give does not differ by a bit.
#pragma once

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#define XD_FAST __attribute__((target("avx2,bmi2,f16c")))
#else
#define XD_FAST
#endif

namespace crossdock::transform {

#if defined(__x86_64__)
// Asked once: on a virtual machine CPUID takes microseconds, for it goes to the hypervisor.
inline bool is_fast() {
  static const bool fast = [] {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2") &&
           __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C) != 0;
  }();
  return fast;
}
#else
constexpr bool is_fast() { return false; }
#endif

}  // namespace crossdock::transform
