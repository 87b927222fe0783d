# SPDX-License-Identifier: Apache-2.0

# cmake -DGROFF=groff -DPAGE=crossdock.1 -P man_page.cmake: the page is right, and has every verb and plugins' options.
execute_process(COMMAND ${GROFF} -ww -man -Tutf8 -z ${PAGE} RESULT_VARIABLE result ERROR_VARIABLE warnings)
if(result OR warnings)
  message(FATAL_ERROR "expected no warning of groff, found\n${warnings}")
endif()
file(READ ${PAGE} text)
string(REPLACE "\\-" "-" text "${text}")
foreach(words "CROSSDOCK CONVERT" "CROSSDOCK COMPLETION" "--world-size" "Writing, with --to universal" "default all cores" "130")
  string(FIND "${text}" "${words}" at)
  if(at EQUAL -1)
    message(FATAL_ERROR "expected the page to have ${words}, found\n${text}")
  endif()
endforeach()
