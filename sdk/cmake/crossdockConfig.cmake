# find_package(crossdock): the target crossdock::sdk and the function crossdock_add_plugin().
include(${CMAKE_CURRENT_LIST_DIR}/crossdockTargets.cmake)
include(${CMAKE_CURRENT_LIST_DIR}/CrossdockPlugin.cmake)
