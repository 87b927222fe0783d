crossdock_test(reader_gguf_test unit
  ${PROJECT_SOURCE_DIR}/plugins/reader_gguf/plugin_test.cc
  ${PROJECT_SOURCE_DIR}/plugins/reader_gguf/plugin.cc
  LIBS crossdock_memory_host reader_gguf_code crossdock::sdk)
