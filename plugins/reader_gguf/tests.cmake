# SPDX-License-Identifier: Apache-2.0
add_executable(bench_gguf_types ${PROJECT_SOURCE_DIR}/tests/bench/gguf_types.cc)
target_link_libraries(bench_gguf_types PRIVATE crossdock_flags reader_gguf_code crossdock::sdk)
set_target_properties(bench_gguf_types PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
crossdock_test(reader_gguf_test unit
  ${PROJECT_SOURCE_DIR}/plugins/reader_gguf/plugin_test.cc
  ${PROJECT_SOURCE_DIR}/plugins/reader_gguf/plugin.cc
  LIBS crossdock_memory_host reader_gguf_code crossdock::sdk)
