# SPDX-License-Identifier: Apache-2.0
crossdock_test(deepspeed_test unit
  ${PROJECT_SOURCE_DIR}/plugins/deepspeed/partition_test.cc
  ${PROJECT_SOURCE_DIR}/plugins/deepspeed/rounded_test.cc
  ${PROJECT_SOURCE_DIR}/plugins/deepspeed/rank_file_test.cc
  LIBS crossdock_deepspeed)
