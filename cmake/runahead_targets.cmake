# runahead_library(NAME [FOLDERS ...] [LINKS ...] [EXCLUDE REGEX]): the static library of the current folder, from its *.cc
# files and those of the named subfolders. A subfolder with a CMakeLists.txt of its own is another library (ADR 18).
# runahead_tests(NAME [LINKS ...] [EXCLUDE REGEX]): the test binary of the current folder and all below it.
# Files are globbed on purpose, and the tidy test finds dead files.
function(runahead_library name)
  cmake_parse_arguments(ARG "" "EXCLUDE" "FOLDERS;LINKS" ${ARGN})
  set(patterns ${CMAKE_CURRENT_SOURCE_DIR}/*.cc)
  foreach(folder ${ARG_FOLDERS})
    list(APPEND patterns ${CMAKE_CURRENT_SOURCE_DIR}/${folder}/*.cc)
  endforeach()
  file(GLOB sources CONFIGURE_DEPENDS ${patterns})
  if(ARG_EXCLUDE)
    list(FILTER sources EXCLUDE REGEX ${ARG_EXCLUDE})
  endif()
  add_library(runahead_${name} STATIC ${sources})
  target_include_directories(runahead_${name} PUBLIC ${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR})
  target_link_libraries(runahead_${name} PUBLIC ${ARG_LINKS})
endfunction()

function(runahead_tests name)
  cmake_parse_arguments(ARG "" "EXCLUDE" "LINKS;LABELS" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cc)
  if(ARG_EXCLUDE)
    list(FILTER sources EXCLUDE REGEX ${ARG_EXCLUDE})
  endif()
  add_executable(${name}_tests ${sources})
  target_link_libraries(${name}_tests PRIVATE ${ARG_LINKS} GTest::gtest GTest::gmock GTest::gtest_main)
  target_compile_definitions(${name}_tests PRIVATE RUNAHEAD_SOURCE_DIR="${CMAKE_SOURCE_DIR}"
                             RUNAHEAD_BINARY_DIR="${CMAKE_BINARY_DIR}")
  add_test(NAME ${name} COMMAND ${name}_tests)
  set_tests_properties(${name} PROPERTIES LABELS "unit;${ARG_LABELS}" TIMEOUT 600)
endfunction()
