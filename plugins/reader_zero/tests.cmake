# SPDX-License-Identifier: Apache-2.0
crossdock_test(reader_zero_test unit
  ${PROJECT_SOURCE_DIR}/plugins/reader_zero/pattern_test.cc
  ${PROJECT_SOURCE_DIR}/plugins/reader_zero/tensor_parallel_test.cc
  ${PROJECT_SOURCE_DIR}/plugins/reader_zero/parallel_test.cc
  ${PROJECT_SOURCE_DIR}/plugins/reader_zero/plugin_test.cc
  ${PROJECT_SOURCE_DIR}/plugins/reader_zero/refusals_test.cc
  ${PROJECT_SOURCE_DIR}/plugins/reader_zero/plugin.cc
  LIBS crossdock_memory_host reader_zero_code crossdock::sdk z)
