# SPDX-License-Identifier: Apache-2.0

# Libraries that cannot be used are listed with their path and the reason, and harm nobody else.
include(${CMAKE_CURRENT_LIST_DIR}/command.cmake)

# All of them in one folder, and two that are right.
set(all ${WORK}/all)
file(GLOB libraries ${LIBRARIES}/*/*.xd.so)
list(FILTER libraries EXCLUDE REGEX "/(toy|throwing|raw|v1_0|npz_[a-z_0-9]+|work_[a-z_0-9]+)/")
file(COPY ${libraries} DESTINATION ${all})
string(REPEAT "this is no library\n" 100 text)
file(WRITE ${all}/text.xd.so "${text}")
file(WRITE ${all}/empty.xd.so "")
file(MAKE_DIRECTORY ${all}/folder.xd.so)
file(WRITE ${all}/unrelated.so "not even looked at")

run(0 plugins --plugin-path ${all})

# expect_refused(FILE text): a line "...: PATH: REASON" for it that has the text.
function(expect_refused file text)
  string(REGEX MATCH "[^\n]*/${file}\\.xd\\.so: [^\n]*" line "${output}")
  string(FIND "${line}" "${text}" found)
  if(line STREQUAL "" OR found EQUAL -1)
    message(FATAL_ERROR "expected a line for ${file}.xd.so that says \"${text}\", found \"${line}\" in\n${output}")
  endif()
endfunction()

expect_refused(needs_minor "needs 1.1")
expect_refused(no_symbol "xd_plugin_v1")
expect_refused(missing_symbol "undefined symbol: xd_test_symbol_that_nobody_has")
expect_refused(library_size_0 "no plugins")
expect_refused(no_library "no plugins")
expect_refused(no_plugins "no plugins")
expect_refused(fails "it is Sunday")
expect_refused(null_id "without an id")
expect_refused(empty_id "without an id")
expect_refused(no_version "version")
expect_refused(no_format "no format")
expect_refused(both_tables "table")
expect_refused(no_table "table")
expect_refused(wrong_kind "table")
expect_refused(unknown_kind "neither reader nor writer")
expect_refused(desc_size_0 "without a description")
expect_refused(table_size_0 "table")
expect_refused(missing_function "lacks a function")
expect_refused(short_table "lacks a function")
expect_refused(nameless_option "option")
expect_refused(text "invalid ELF header")
expect_refused(empty "file too short")
expect_not("unrelated.so")

# Structs of another length are no reason: an older plugin, and a newer one that says it needs nothing new.
expect("org.example.reader.older")
expect("org.example.reader.newer")
expect("org.crossdock.reader.safetensors")

# The same id twice: the first is used, and the other one says where that is.
file(COPY ${LIBRARIES}/toy/toy.xd.so DESTINATION ${WORK}/first)
file(COPY ${LIBRARIES}/toy/toy.xd.so DESTINATION ${WORK}/second)
run(0 plugins --plugin-path ${WORK}/first --plugin-path ${WORK}/second)
expect("second/toy.xd.so: org.example.reader.toy was already loaded from ${WORK}/first/toy.xd.so")
expect("second/toy.xd.so: org.example.writer.toy was already loaded from ${WORK}/first/toy.xd.so")

# CROSSDOCK_PLUGIN_PATH comes after --plugin-path; the current directory and its parts never count by themselves.
set(ENV{CROSSDOCK_PLUGIN_PATH} ${WORK}/nowhere:${WORK}/second)
run(0 plugins)
expect("org.example.reader.toy")
run(0 plugins --plugin-path ${WORK}/first)
expect("was already loaded from ${WORK}/first")
unset(ENV{CROSSDOCK_PLUGIN_PATH})
file(COPY ${LIBRARIES}/toy/toy.xd.so DESTINATION ${WORK})
file(COPY ${LIBRARIES}/toy/toy.xd.so DESTINATION ${WORK}/lib/crossdock/plugins-1)
run(0 plugins)
expect_not("toy")

# One plugin in detail, by id and by format.
run(0 plugins org.example.reader.newer --plugin-path ${all})
expect("A reader for tests")
run(0 plugins toy --plugin-path ${WORK}/first)
expect("org.example.reader.toy")
run(1 plugins org.example.nobody)
expect("org.example.nobody")
