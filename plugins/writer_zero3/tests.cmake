# SPDX-License-Identifier: Apache-2.0
crossdock_test(writer_zero3_test unit
  ${PROJECT_SOURCE_DIR}/plugins/writer_zero3/plugin_test.cc
  ${PROJECT_SOURCE_DIR}/plugins/writer_zero3/plugin.cc
  LIBS crossdock_memory_host writer_zero3_code crossdock::sdk)
crossdock_test(writer_zero3_settings_test unit
  ${PROJECT_SOURCE_DIR}/plugins/writer_zero3/settings_test.cc
  LIBS writer_zero3_code crossdock::sdk)
