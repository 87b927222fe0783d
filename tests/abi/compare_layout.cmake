# SPDX-License-Identifier: Apache-2.0

# cmake -DLAYOUT=program -DRECORD=file -P compare_layout.cmake
# Append only: every line on record must still be printed, so nothing moved, went or changed its type. What is printed
# and not on record is an addition: legal at the end of a struct, but somebody must write it down.
cmake_minimum_required(VERSION 3.22)
execute_process(COMMAND ${LAYOUT} OUTPUT_VARIABLE now RESULT_VARIABLE code ERROR_VARIABLE complaint)
if(code)
  message(FATAL_ERROR "${complaint}add the field to the table in layout.c")
endif()
file(READ ${RECORD} record)
# A ';' would cut a CMake list; there is none in a declaration.
string(REPLACE "\n" ";" now "${now}")
string(REPLACE "\n" ";" record "${record}")
set(bad 0)
foreach(line IN LISTS record)
  if(NOT line IN_LIST now)
    message("changed or removed: ${line}")
    set(bad 1)
  endif()
endforeach()
foreach(line IN LISTS now)
  if(NOT line IN_LIST record)
    message("not on record:      ${line}")
    set(bad 1)
  endif()
endforeach()
if(bad)
  message(FATAL_ERROR "plugin.h differs from ${RECORD}. Fields may be appended: then add their lines to the record and "
    "raise XD_ABI_MINOR. Anything else breaks plugins that exist; while sdk/ABI.md says \"not frozen\", record it anew.")
endif()
