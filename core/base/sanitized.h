// SPDX-License-Identifier: Apache-2.0

// CROSSDOCK_SANITIZED: compiled with the address or the thread sanitizer, which handle crashes and
// map address space in ways of their own.
#pragma once

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)  // gcc
#define CROSSDOCK_SANITIZED
#elif defined(__has_feature)  // clang
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define CROSSDOCK_SANITIZED
#endif
#endif
