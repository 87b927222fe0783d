# SPDX-License-Identifier: Apache-2.0
crossdock_test(common_hf_test unit
  ${PROJECT_SOURCE_DIR}/plugins/common/json_test.cc
  ${PROJECT_SOURCE_DIR}/plugins/common/hf_folder_test.cc
  LIBS crossdock_memory_host crossdock_plugin_common crossdock::sdk)
