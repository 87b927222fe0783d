# SPDX-License-Identifier: Apache-2.0
crossdock_test(reader_dcp_test unit
  ${PROJECT_SOURCE_DIR}/plugins/reader_dcp/metadata_test.cc
  ${PROJECT_SOURCE_DIR}/plugins/reader_dcp/plugin_test.cc
  ${PROJECT_SOURCE_DIR}/plugins/reader_dcp/plugin.cc
  LIBS crossdock_memory_host reader_dcp_code crossdock::sdk z)
