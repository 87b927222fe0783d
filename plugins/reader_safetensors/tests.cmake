crossdock_test(reader_safetensors_test unit
  ${PROJECT_SOURCE_DIR}/plugins/reader_safetensors/header_test.cc
  ${PROJECT_SOURCE_DIR}/plugins/reader_safetensors/checkpoint_test.cc
  ${PROJECT_SOURCE_DIR}/plugins/reader_safetensors/plugin_test.cc
  ${PROJECT_SOURCE_DIR}/plugins/reader_safetensors/plugin.cc
  ${PROJECT_SOURCE_DIR}/tests/support/memory_host.cc
  LIBS reader_safetensors_code crossdock::sdk)
