# SPDX-License-Identifier: Apache-2.0
crossdock_test(writer_universal_test unit
  ${PROJECT_SOURCE_DIR}/plugins/writer_universal/settings_test.cc
  ${PROJECT_SOURCE_DIR}/plugins/writer_universal/plugin_test.cc
  ${PROJECT_SOURCE_DIR}/plugins/writer_universal/plugin.cc
  LIBS crossdock_memory_host writer_universal_code crossdock::sdk)
