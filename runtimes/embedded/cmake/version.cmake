# Set VMP_EDGE_VERSION from the Python package's __init__.py, the only file that states the version.
# A checkout and an sdist have that file in vmp_edge/, beside runtimes/. In an installed package it is the folder above
# runtimes/.
get_filename_component(root "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
set(version_file "${root}/vmp_edge/__init__.py")
if(NOT EXISTS "${version_file}")
  set(version_file "${root}/__init__.py")
endif()
if(NOT EXISTS "${version_file}")
  message(FATAL_ERROR "The version is missing: neither ${root}/vmp_edge/__init__.py nor ${root}/__init__.py exists. "
                      "Copy the whole checkout or the whole installed package.")
endif()
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${version_file}")
file(STRINGS "${version_file}" VMP_EDGE_VERSION REGEX "^__version__ = ")
# CMake's versions are numbers only: "0.2.0rc1" becomes 0.2.0.
if(NOT VMP_EDGE_VERSION MATCHES "\"([0-9]+\\.[0-9]+\\.[0-9]+)")
  message(FATAL_ERROR "${version_file} has no line __version__ = \"MAJOR.MINOR.PATCH\"")
endif()
set(VMP_EDGE_VERSION "${CMAKE_MATCH_1}")
