# SPDX-License-Identifier: Apache-2.0
crossdock_test(reader_bin_test unit
  ${PROJECT_SOURCE_DIR}/plugins/reader_bin/choose_test.cc
  ${PROJECT_SOURCE_DIR}/plugins/reader_bin/plugin_test.cc
  ${PROJECT_SOURCE_DIR}/plugins/reader_bin/plugin.cc
  LIBS crossdock_memory_host reader_bin_code crossdock::sdk z)
