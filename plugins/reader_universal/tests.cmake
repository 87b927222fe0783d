# SPDX-License-Identifier: Apache-2.0
crossdock_test(reader_universal_test unit
  ${PROJECT_SOURCE_DIR}/plugins/reader_universal/plugin_test.cc
  ${PROJECT_SOURCE_DIR}/plugins/reader_universal/refusals_test.cc
  ${PROJECT_SOURCE_DIR}/plugins/reader_universal/plugin.cc
  LIBS crossdock_memory_host reader_universal_code crossdock::sdk z)
