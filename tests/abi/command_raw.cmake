# SPDX-License-Identifier: Apache-2.0

# The smallest plugin, of sdk/ABI.md.
include(${CMAKE_CURRENT_LIST_DIR}/command.cmake)
set(plugins --plugin-path ${LIBRARIES}/raw)
file(WRITE ${WORK}/values.raw "abcdefghijkl")

run(0 inspect values.raw --json ${plugins})
expect("\"F32\"")
run(0 convert values.raw out --to universal ${plugins} --no-sync --progress none)
if(NOT EXISTS ${WORK}/out/global_step0/zero/values/fp32.pt)
  message(FATAL_ERROR "expected the parameter \"values\" in out, found none")
endif()
file(WRITE ${WORK}/odd.raw "abc")
run(1 inspect odd.raw ${plugins})
expect("odd.raw: expected whole float32 values, found 3 bytes")
