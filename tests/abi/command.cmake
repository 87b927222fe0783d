# SPDX-License-Identifier: Apache-2.0

# What the scripts that run the real command share. CROSSDOCK: the command; WORK: a folder for this test alone.
cmake_minimum_required(VERSION 3.22)
file(REMOVE_RECURSE ${WORK})
file(MAKE_DIRECTORY ${WORK})
unset(ENV{CROSSDOCK_PLUGIN_PATH})

# run(CODE arguments...): runs the command, wants this exit code, and leaves its output (both streams) in `output`.
macro(run code)
  execute_process(COMMAND ${CROSSDOCK} ${ARGN} WORKING_DIRECTORY ${WORK} RESULT_VARIABLE result
    OUTPUT_VARIABLE output ERROR_VARIABLE errors)
  string(APPEND output "${errors}")
  if(NOT result STREQUAL "${code}")
    message(FATAL_ERROR "crossdock ${ARGN}: expected exit code ${code}, found ${result}\n${output}")
  endif()
endmacro()

# The last output must have (or must not have) this text.
macro(expect text)
  string(FIND "${output}" "${text}" found)
  if(found EQUAL -1)
    message(FATAL_ERROR "expected the output to say: ${text}\n${output}")
  endif()
endmacro()
macro(expect_not text)
  string(FIND "${output}" "${text}" found)
  if(NOT found EQUAL -1)
    message(FATAL_ERROR "expected the output not to say: ${text}\n${output}")
  endif()
endmacro()

macro(expect_absent)
  foreach(path ${ARGN})
    if(EXISTS ${WORK}/${path})
      message(FATAL_ERROR "expected no ${path}, found one")
    endif()
  endforeach()
endmacro()

macro(expect_same_files a b)
  execute_process(COMMAND ${CMAKE_COMMAND} -E compare_files ${a} ${b} RESULT_VARIABLE result)
  if(result)
    message(FATAL_ERROR "expected ${a} and ${b} to be the same")
  endif()
endmacro()
