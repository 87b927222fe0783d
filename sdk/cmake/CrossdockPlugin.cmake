# SPDX-License-Identifier: Apache-2.0

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

# crossdock_add_conformance_test(NAME MODULE CORPUS...)
#
# A test for ctest: the plugins of MODULE, a target of crossdock_add_plugin() or the path of a library, are held against the
# contract by crossdock-validate, on the files and folders CORPUS.
function(crossdock_add_conformance_test name module)
  if(NOT TARGET crossdock::validate)
    message(FATAL_ERROR "expected the program crossdock-validate in this installation of crossdock, found none: "
                        "crossdock_add_conformance_test() needs a crossdock that was installed with it")
  endif()
  if(TARGET ${module})
    set(module $<TARGET_FILE:${module}>)
  endif()
  set(corpus)
  foreach(path IN LISTS ARGN)
    get_filename_component(path ${path} ABSOLUTE)
    list(APPEND corpus ${path})
  endforeach()
  add_test(NAME ${name} COMMAND crossdock::validate ${module} ${corpus})
endfunction()
