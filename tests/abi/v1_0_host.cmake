# SPDX-License-Identifier: Apache-2.0

# Today's plugins in a host that knows ABI 1.0 only. HOST: the program; TOY, SAFETENSORS: the libraries; WORK: a folder.
cmake_minimum_required(VERSION 3.22)
file(REMOVE_RECURSE ${WORK})

function(expect_bytes expected)
  execute_process(COMMAND ${HOST} ${ARGN} RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE errors)
  if(result OR NOT output STREQUAL expected)
    message(FATAL_ERROR "${ARGN}: expected \"${expected}\", found ${result}, \"${output}\"\n${errors}")
  endif()
endfunction()

file(WRITE ${WORK}/in.xdtoy "xdtoy 1\na U8 6\nb U8 2,2\ndata\nabcdefghij0000000000000255\n00000000000001a2\n")
expect_bytes(abcdefghij ${TOY} ${WORK}/in.xdtoy 6 4)
# Eight bytes of length, which CMake cannot write: its texts hold no zeros.
set(header "{\"a\":{\"dtype\":\"U8\",\"shape\":[6],\"data_offsets\":[0,6]},\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[6,10]}}")
string(LENGTH "${header}" n)
math(EXPR octal_high "${n} / 64")
math(EXPR octal_mid "${n} / 8 % 8")
math(EXPR octal_low "${n} % 8")
execute_process(COMMAND printf "\\${octal_high}${octal_mid}${octal_low}\\0\\0\\0\\0\\0\\0\\0%s" "${header}abcdefghij"
                OUTPUT_FILE ${WORK}/model.safetensors)
expect_bytes(abcdefghij ${SAFETENSORS} ${WORK}/model.safetensors 6 4)
