# What other projects need to find the installed library: a package for CMake, and a file for pkg-config. Both find the
# rest of the installation from where they lie, so that it can be moved, whatever its folders are called.
include(CMakePackageConfigHelpers)
set(package_folder "${CMAKE_INSTALL_LIBDIR}/cmake/vmp_edge")

# The C++ runtime, by the names that the C++ compiler links and the C compiler does not. Programs in C need it to link
# the static library.
set(VMP_EDGE_CXX_RUNTIME ${CMAKE_CXX_IMPLICIT_LINK_LIBRARIES})
list(REMOVE_ITEM VMP_EDGE_CXX_RUNTIME ${CMAKE_C_IMPLICIT_LINK_LIBRARIES} "")
list(REMOVE_DUPLICATES VMP_EDGE_CXX_RUNTIME)

install(TARGETS vmp_edge EXPORT vmp_edge-targets PUBLIC_HEADER DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT vmp_edge-targets NAMESPACE vmp_edge:: DESTINATION ${package_folder})
configure_package_config_file(cmake/vmp_edge-config.cmake.in vmp_edge-config.cmake INSTALL_DESTINATION
                              ${package_folder})
write_basic_package_version_file(vmp_edge-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/vmp_edge-config.cmake
              ${CMAKE_CURRENT_BINARY_DIR}/vmp_edge-config-version.cmake DESTINATION ${package_folder})

# Set `result` to a folder of the installation as the .pc file writes it: relative to the prefix if it lies inside.
function(pc_folder folder result)
  file(RELATIVE_PATH inside "${CMAKE_INSTALL_PREFIX}" "${folder}")
  if(inside MATCHES "^\\.\\.(/|$)")
    set(${result} "${folder}" PARENT_SCOPE)
  else()
    set(${result} "\${prefix}/${inside}" PARENT_SCOPE)
  endif()
endfunction()
pc_folder("${CMAKE_INSTALL_FULL_LIBDIR}" VMP_EDGE_PC_LIBDIR)
pc_folder("${CMAKE_INSTALL_FULL_INCLUDEDIR}" VMP_EDGE_PC_INCLUDEDIR)
if(VMP_EDGE_PC_LIBDIR MATCHES "^[$]{prefix}")
  file(RELATIVE_PATH up "${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig" "${CMAKE_INSTALL_PREFIX}")
  string(REGEX REPLACE "/$" "" up "${up}")
  set(VMP_EDGE_PC_PREFIX "\${pcfiledir}/${up}")
else()
  set(VMP_EDGE_PC_PREFIX "${CMAKE_INSTALL_PREFIX}")
endif()
set(libraries ${VMP_EDGE_CXX_RUNTIME} ${CMAKE_THREAD_LIBS_INIT} ${CMAKE_DL_LIBS})
list(TRANSFORM libraries REPLACE "^-l?" "")
list(TRANSFORM libraries PREPEND "-l")
list(REMOVE_DUPLICATES libraries)
list(JOIN libraries " " VMP_EDGE_PC_PRIVATE)
configure_file(cmake/vmp_edge.pc.in vmp_edge.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/vmp_edge.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
