# SPDX-License-Identifier: Apache-2.0

# cmake -DSOURCE=<project root> -P layers_test.cmake
#
# Includes go one way: sdk < core/base < report < io < transform < model < rules < quantised < plugin < convert <
# verify < apps/command < other apps. Plugins see the sdk, plugins/common, plugins/torch and plugins/deepspeed; plugins/torch/read and
# plugins/torch/write see the sdk and plugins/common, and not each other; plugins/deepspeed sees
# plugins/torch/read; examples see the sdk as installed; nothing outside the tests sees tests. A file of ours is included by its path from the
# root, so the path says the layer; files of the sdk as <crossdock/...>.
cmake_minimum_required(VERSION 3.22)
set(core_layers base report io transform model rules quantised plugin convert verify)  # each may see those before it and itself
set(test_file "(_test\\.(cc|h|c)|_for_test\\.(h|cc))$")
set(sdk_or_standard "^crossdock/(testing/)?[a-z_]+\\.(h|hpp)$|^[a-z_]+$|^(std(def|int|lib)|string)\\.h$")  # the sdk depends on nothing
set(problems)
set(n_files 0)

# What a file of ours may include besides <...>: a regular expression, in `allowed`.
function(allowed_for file)
  set(allowed "^$")  # nothing
  if(file MATCHES "^core/([a-z]+)/")
    set(layer ${CMAKE_MATCH_1})
    list(FIND core_layers ${layer} rank)
    if(rank EQUAL -1)
      message(FATAL_ERROR "core/${layer} is not a layer: add it to layers_test.cmake at its place")
    endif()
    math(EXPR n "${rank} + 1")
    list(SUBLIST core_layers 0 ${n} below)
    list(JOIN below "|" below)
    set(allowed "^core/(${below})/")
    if(rank GREATER_EQUAL 4)
      string(APPEND allowed "|^crossdock/manifest\\.pb\\.h$")  # only from core/model up does the host know protobuf
    endif()
  elseif(file MATCHES "^apps/([^/]+)/")
    set(allowed "^core/|^apps/(command|${CMAKE_MATCH_1})/")
  elseif(file MATCHES "^plugins/common/")
    set(allowed "^plugins/common/")
  elseif(file MATCHES "^plugins/torch/(read|write)/")
    set(allowed "^plugins/common/|^plugins/torch/${CMAKE_MATCH_1}/")
  elseif(file MATCHES "^plugins/deepspeed/")
    set(allowed "^plugins/(common|torch/read|deepspeed)/")
  elseif(file MATCHES "^plugins/([^/]+)/")
    set(allowed "^plugins/(common|torch/read|torch/write|deepspeed)/|^plugins/${CMAKE_MATCH_1}/")
  elseif(file MATCHES "^examples/")
    set(allowed "^[^/]+$")  # its neighbours
  endif()
  if(file MATCHES "${test_file}")
    string(APPEND allowed "|^tests/")
  endif()
  set(allowed "${allowed}" PARENT_SCOPE)
endfunction()

# What it must not include in <...>.
function(forbidden_for file)
  set(forbidden "^(core|apps|plugins|tests)/|\\.\\.")
  if(file MATCHES "^(plugins|examples)/")
    string(APPEND forbidden "|^google/protobuf/|^crossdock/manifest\\.pb\\.h$")  # one copy of protobuf in a process: the host's
  endif()
  set(forbidden "${forbidden}" PARENT_SCOPE)
endfunction()

function(check file)
  allowed_for(${file})
  forbidden_for(${file})
  file(STRINGS ${SOURCE}/${file} lines REGEX "^[ \t]*#[ \t]*include")
  foreach(line IN LISTS lines)
    if(line MATCHES "include[ \t]*\"([^\"]+)\"")
      set(name "${CMAKE_MATCH_1}")
      if(NOT name MATCHES "${allowed}")
        list(APPEND problems "${file} includes \"${name}\"")
      elseif(NOT file MATCHES "${test_file}" AND name MATCHES "${test_file}")
        list(APPEND problems "${file} includes \"${name}\", which is a test's")
      endif()
    elseif(line MATCHES "include[ \t]*<([^>]+)>")
      set(name "${CMAKE_MATCH_1}")
      if(name MATCHES "${forbidden}" OR (file MATCHES "^sdk/" AND NOT name MATCHES "${sdk_or_standard}"))
        list(APPEND problems "${file} includes <${name}>")
      endif()
    else()
      list(APPEND problems "${file} includes what this test cannot read: ${line}")
    endif()
  endforeach()
  set(problems "${problems}" PARENT_SCOPE)
endfunction()

foreach(root sdk core apps plugins examples)
  set(patterns)
  foreach(ending c h cc hpp)
    list(APPEND patterns ${SOURCE}/${root}/*.${ending})
  endforeach()
  file(GLOB_RECURSE files RELATIVE ${SOURCE} ${patterns})
  list(LENGTH files n)
  if(n EQUAL 0)
    message(FATAL_ERROR "expected sources in ${SOURCE}/${root}, found none")
  endif()
  math(EXPR n_files "${n_files} + ${n}")
  foreach(file IN LISTS files)
    check(${file})
  endforeach()
endforeach()

if(problems)
  list(JOIN problems "\n  " problems)
  message(FATAL_ERROR "includes against the direction of the layers:\n  ${problems}")
endif()
message("${n_files} files: all includes go one way")
