# SPDX-License-Identifier: Apache-2.0

# The libraries that crossdock links, as targets: found here once, for core, plugins, apps and tests.
#
# CROSSDOCK_STATIC_DEPS puts all of them into what is built, as a wheel needs it that must run where none of them is
# installed. Debian has no static simdjson and ISA-L: scripts/static_deps.sh builds these.
option(CROSSDOCK_STATIC_DEPS "Link static libraries of everything but the C and C++ runtime" OFF)
if(CROSSDOCK_STATIC_DEPS)
  set(Boost_USE_STATIC_LIBS ON)
  set(OPENSSL_USE_STATIC_LIBS ON)
  set(Protobuf_USE_STATIC_LIBS ON)
endif()
find_package(Boost 1.74 REQUIRED COMPONENTS filesystem program_options)
find_package(fmt REQUIRED)
find_package(OpenSSL REQUIRED COMPONENTS Crypto)
find_package(Protobuf REQUIRED)
find_package(simdjson REQUIRED)
find_package(Threads REQUIRED)

# crossdock_library(NAME LIBRARY HEADER): a target for what has no package file that every system knows.
function(crossdock_library name library header)
  set(names ${library})
  if(CROSSDOCK_STATIC_DEPS)
    set(names ${CMAKE_STATIC_LIBRARY_PREFIX}${library}${CMAKE_STATIC_LIBRARY_SUFFIX})
  endif()
  find_library(CROSSDOCK_${name} NAMES ${names} REQUIRED)
  find_path(CROSSDOCK_${name}_HEADERS ${header} REQUIRED)
  add_library(crossdock_dep_${name} INTERFACE)
  target_link_libraries(crossdock_dep_${name} INTERFACE ${CROSSDOCK_${name}})
  target_include_directories(crossdock_dep_${name} SYSTEM INTERFACE ${CROSSDOCK_${name}_HEADERS})
endfunction()
crossdock_library(isal isal isa-l/crc.h)
crossdock_library(xxhash xxhash xxhash.h)
crossdock_library(zlib z zlib.h)

# fmt is its headers alone where its library is a shared one.
set(crossdock_fmt fmt::fmt)
if(CROSSDOCK_STATIC_DEPS)
  get_target_property(kind fmt::fmt TYPE)
  if(NOT kind STREQUAL "STATIC_LIBRARY")
    set(crossdock_fmt fmt::fmt-header-only)
  endif()
  get_target_property(kind simdjson::simdjson TYPE)
  if(NOT kind STREQUAL "STATIC_LIBRARY")
    message(FATAL_ERROR "expected a static simdjson, found a shared one: scripts/static_deps.sh FOLDER builds it, then "
                        "set CMAKE_PREFIX_PATH=FOLDER")
  endif()
endif()
