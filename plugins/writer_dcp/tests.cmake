# SPDX-License-Identifier: Apache-2.0
crossdock_test(writer_dcp_test unit
  ${PROJECT_SOURCE_DIR}/plugins/writer_dcp/plugin_test.cc
  ${PROJECT_SOURCE_DIR}/plugins/writer_dcp/plugin.cc
  LIBS crossdock_memory_host writer_dcp_code crossdock_torch_read crossdock::sdk z)
