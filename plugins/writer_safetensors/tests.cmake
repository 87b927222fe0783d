# SPDX-License-Identifier: Apache-2.0
crossdock_test(writer_safetensors_test unit
  ${PROJECT_SOURCE_DIR}/plugins/writer_safetensors/layout_test.cc
  ${PROJECT_SOURCE_DIR}/plugins/writer_safetensors/plugin_test.cc
  ${PROJECT_SOURCE_DIR}/plugins/writer_safetensors/plugin.cc
  LIBS crossdock_memory_host writer_safetensors_code crossdock::sdk)
