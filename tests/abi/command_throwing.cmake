# SPDX-License-Identifier: Apache-2.0

# A C++ plugin that throws, anywhere: an error with its text, exit code 1, and nothing left behind.
include(${CMAKE_CURRENT_LIST_DIR}/command.cmake)
set(plugins --plugin-path ${LIBRARIES}/throwing)
file(WRITE ${WORK}/in/nowhere "8 bytes.")

foreach(case "open|boom in open" "manifest|boom in manifest" "read|boom in read" "read-memory|memory")
  string(REPLACE "|" ";" case "${case}")
  list(GET case 0 where)
  list(GET case 1 text)
  run(1 convert in out --to throwing --from throwing --throw-in ${where} ${plugins} --no-sync --progress none)
  expect("${text}")
  expect_absent(out out.partial)
endforeach()

foreach(case "open|boom in the writer's open" "plan|boom in plan" "item|boom in write_item" "seal|unknown exception"
        "commit|boom in commit")
  string(REPLACE "|" ";" case "${case}")
  list(GET case 0 where)
  list(GET case 1 text)
  run(1 convert in out --to throwing --from throwing --fail-in ${where} ${plugins} --no-sync --progress none)
  expect("${text}")
  expect_absent(out out.partial)
endforeach()

# A probe that throws has a score of 0, so nobody reads this.
run(1 convert in out --to throwing ${plugins} --no-sync)
expect("expected a checkpoint in a format that can be read")

# Left alone, it works.
run(0 convert in out --to throwing --from throwing ${plugins} --no-sync --progress none)
file(SIZE ${WORK}/out/w.raw size)
if(NOT size EQUAL 8)
  message(FATAL_ERROR "expected 8 bytes, found ${size}")
endif()
