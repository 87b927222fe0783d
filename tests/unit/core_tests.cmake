# SPDX-License-Identifier: Apache-2.0

# The core's unit tests; included by tests/CMakeLists.txt. Those that use threads carry the label `scheduler`: they run
# under the thread sanitizer too.
set(core_tests ${PROJECT_SOURCE_DIR}/tests/unit)
set_source_files_properties(${core_tests}/core_registry_test.cc PROPERTIES COMPILE_DEFINITIONS
  CROSSDOCK_PLUGIN_INSTALL_DIR="${CMAKE_INSTALL_FULL_LIBDIR}/${CROSSDOCK_PLUGIN_SUBDIR}")

foreach(name text sha256 os hf_cache input paths check target refusals config_check describe rules compose options registry rank_memory part journal cast decoder gather transform dequantise dequantise_views quantised quantised_errors plan_check)
  crossdock_test(core_${name}_test unit ${core_tests}/core_${name}_test.cc LIBS crossdock::core)
endforeach()
foreach(name json_writer report value_text)
  crossdock_test(core_${name}_test unit ${core_tests}/core_${name}_test.cc LIBS crossdock::core simdjson::simdjson)
endforeach()
foreach(name layout rules_values)
  crossdock_test(core_${name}_test unit ${core_tests}/core_${name}_test.cc LIBS crossdock::core crossdock_protos)
endforeach()
crossdock_test(core_dump_test unit ${core_tests}/core_dump_test.cc LIBS crossdock::core crossdock_protos)
foreach(name memory tree_digest staging host open_model source_proof tensor_service scheduler verify)
  crossdock_test(core_${name}_test scheduler ${core_tests}/core_${name}_test.cc LIBS crossdock::core)
endforeach()
crossdock_test(core_convert_test scheduler ${core_tests}/core_convert_test.cc LIBS crossdock::core simdjson::simdjson)
crossdock_test(core_unsized_test scheduler ${core_tests}/core_unsized_test.cc LIBS crossdock::core)
