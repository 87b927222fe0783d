# SPDX-License-Identifier: Apache-2.0
crossdock_test(reader_safetensors_test unit
  ${PROJECT_SOURCE_DIR}/plugins/reader_safetensors/header_test.cc
  ${PROJECT_SOURCE_DIR}/plugins/reader_safetensors/checkpoint_test.cc
  ${PROJECT_SOURCE_DIR}/plugins/reader_safetensors/plugin_test.cc
  ${PROJECT_SOURCE_DIR}/plugins/reader_safetensors/plugin.cc
  LIBS crossdock_memory_host reader_safetensors_code crossdock::sdk)
