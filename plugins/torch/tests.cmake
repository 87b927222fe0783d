# SPDX-License-Identifier: Apache-2.0
crossdock_test(torch_read_test unit
  ${PROJECT_SOURCE_DIR}/plugins/torch/read/pickle_test.cc
  ${PROJECT_SOURCE_DIR}/plugins/torch/read/zip_test.cc
  LIBS crossdock_memory_host crossdock_torch_read crossdock::sdk z)
crossdock_test(torch_write_test unit
  ${PROJECT_SOURCE_DIR}/plugins/torch/write/file_layout_test.cc
  ${PROJECT_SOURCE_DIR}/plugins/torch/write/pickle_writer_test.cc
  ${PROJECT_SOURCE_DIR}/plugins/torch/write/results_test.cc
  ${PROJECT_SOURCE_DIR}/plugins/torch/write/stream_test.cc
  LIBS crossdock_memory_host crossdock_torch_write crossdock::sdk)
