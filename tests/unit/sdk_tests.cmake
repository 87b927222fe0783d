# SPDX-License-Identifier: Apache-2.0

# The SDK's unit tests; included by tests/CMakeLists.txt.
set(sdk_tests ${PROJECT_SOURCE_DIR}/tests/unit)

crossdock_test(sdk_result_test unit ${sdk_tests}/sdk_result_test.cc LIBS crossdock::sdk)
crossdock_test(sdk_bytes_test unit ${sdk_tests}/sdk_bytes_test.cc LIBS crossdock::sdk)
crossdock_test(sdk_file_name_test unit ${sdk_tests}/sdk_file_name_test.cc LIBS crossdock::sdk)
crossdock_test(sdk_part_name_test unit ${sdk_tests}/sdk_part_name_test.cc LIBS crossdock::sdk)
crossdock_test(sdk_dtype_test unit ${sdk_tests}/sdk_dtype_test.cc LIBS crossdock::sdk)

# Texts that were changed are judged by a parser of JSON.
crossdock_test(sdk_config_text_test unit ${sdk_tests}/sdk_config_text_test.cc LIBS crossdock::sdk simdjson::simdjson)

# manifest_wire.hpp is judged by protoc's own classes of manifest.proto, which core builds for its JSON form.
crossdock_test(sdk_wire_test unit ${sdk_tests}/sdk_wire_test.cc LIBS crossdock::sdk crossdock_protos)

# The direction of includes.
add_test(NAME layers COMMAND ${CMAKE_COMMAND} -DSOURCE=${PROJECT_SOURCE_DIR}
         -P ${PROJECT_SOURCE_DIR}/tests/layers_test.cmake)
set_tests_properties(layers PROPERTIES LABELS unit)
