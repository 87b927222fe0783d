# SPDX-License-Identifier: Apache-2.0

# What `cpack` makes of a build that was configured with the preset `package`: Debian packages of this distribution.
# scripts/test_deb.sh makes and tests them. Dependencies are those that dpkg-shlibdeps finds.
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME crossdock)
set(CPACK_PACKAGE_CONTACT "The crossdock developers")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_OUTPUT_FILE_PREFIX ${PROJECT_BINARY_DIR}/packages)

set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_COMPONENTS_ALL runtime python sdk)
set(CPACK_COMPONENTS_GROUPING ONE_PER_GROUP)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_SECTION utils)
set(CPACK_DEBIAN_PROGRAM_PACKAGE_NAME crossdock)
set(CPACK_DEBIAN_PROGRAM_PACKAGE_SUGGESTS python3)
set(CPACK_DEBIAN_PROGRAM_PACKAGE_CONTROL_EXTRA ${PROJECT_SOURCE_DIR}/cmake/prerm)
set(CPACK_COMPONENT_PROGRAM_DESCRIPTION "converts model checkpoints between formats
 Exactly, at the speed of the disk, in bounded memory: safetensors, PyTorch, GGUF,
 DeepSpeed's Universal and ZeRO checkpoints, torch Distributed Checkpoint.")
set(CPACK_DEBIAN_SDK_PACKAGE_NAME crossdock-dev)
set(CPACK_DEBIAN_SDK_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_SDK_PACKAGE_DEPENDS "crossdock (= ${PROJECT_VERSION})")
set(CPACK_COMPONENT_SDK_DESCRIPTION "headers, documents and examples for plugins of crossdock
 Also for programs that convert model checkpoints by themselves.")

include(CPack)
cpack_add_component_group(program)
cpack_add_component_group(sdk)
cpack_add_component(runtime GROUP program)
cpack_add_component(python GROUP program)
cpack_add_component(sdk GROUP sdk)
