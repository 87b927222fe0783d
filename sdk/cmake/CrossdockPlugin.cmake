# crossdock_add_plugin(NAME SOURCES...)
#
# A shared library NAME.xd.so that exports xd_plugin_v1 and nothing else, and fails to link rather than to load when a
# symbol is missing. In crossdock's own tree it goes to the build's plugin folder and is installed.

function(crossdock_add_plugin name)
  add_library(${name} MODULE ${ARGN})
  target_link_libraries(${name} PRIVATE crossdock::sdk)
  target_link_options(${name} PRIVATE -Wl,--version-script=${CMAKE_CURRENT_FUNCTION_LIST_DIR}/plugin.map)
  if(NOT CROSSDOCK_SANITIZE)  # sanitizers leave their own symbols to the executable
    target_link_options(${name} PRIVATE -Wl,-z,defs)
  endif()
  set_target_properties(${name} PROPERTIES PREFIX "" SUFFIX ".xd.so" CXX_VISIBILITY_PRESET hidden C_VISIBILITY_PRESET hidden)
  if(TARGET crossdock_flags)
    target_link_libraries(${name} PRIVATE crossdock_flags)
  endif()
  if(CROSSDOCK_PLUGIN_SUBDIR AND PROJECT_NAME STREQUAL crossdock)
    set_property(GLOBAL APPEND PROPERTY CROSSDOCK_PLUGINS ${name})
    set_target_properties(${name} PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/lib/${CROSSDOCK_PLUGIN_SUBDIR})
    install(TARGETS ${name} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}/${CROSSDOCK_PLUGIN_SUBDIR} COMPONENT runtime)
  endif()
endfunction()
