# SPDX-License-Identifier: Apache-2.0
crossdock_test(plugin_common_test unit
  ${PROJECT_SOURCE_DIR}/plugins/common/crc32_test.cc
  LIBS crossdock_plugin_common)
crossdock_test(common_ds_config_test unit
  ${PROJECT_SOURCE_DIR}/plugins/common/ds_config_test.cc
  LIBS crossdock_plugin_common)
crossdock_test(common_segments_test unit
  ${PROJECT_SOURCE_DIR}/plugins/common/segments_test.cc
  LIBS crossdock_memory_host crossdock_plugin_common crossdock::sdk)
crossdock_test(common_boxes_test unit
  ${PROJECT_SOURCE_DIR}/plugins/common/boxes_test.cc
  LIBS crossdock_memory_host crossdock_plugin_common crossdock::sdk)
