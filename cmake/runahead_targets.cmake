# runahead_library(NAME [FOLDERS ...] [LINKS ...] [EXCLUDE REGEX]): the static library of the current folder, from its *.cc
# files and those of the named subfolders. A subfolder with a CMakeLists.txt of its own is another library (ADR 18).
# runahead_tests(NAME [LINKS ...] [EXCLUDE REGEX] [COMPUTING]): the test binary of the current folder and all below it.
# PRECOMPILE async|json|gtest ...: libraries that most files of the target include, parsed once for all of them: 1 to 2 s less
# for a file that takes 5, nothing where code generation is the most. Never our own headers: each change would compile everything
# anew.
# Files are globbed on purpose, and the tidy test finds dead files.
set(RUNAHEAD_PRECOMPILE_async
    <boost/asio/any_io_executor.hpp> <boost/asio/as_tuple.hpp> <boost/asio/awaitable.hpp> <boost/asio/co_spawn.hpp>
    <boost/asio/detached.hpp> <boost/asio/io_context.hpp> <boost/asio/ip/tcp.hpp> <boost/asio/steady_timer.hpp>
    <boost/asio/use_awaitable.hpp> <boost/asio/write.hpp>)
set(RUNAHEAD_PRECOMPILE_json <nlohmann/json.hpp>)
set(RUNAHEAD_PRECOMPILE_gtest <gtest/gtest.h> <gmock/gmock.h>)

# Each set is parsed once for all targets that have it, by a target of nothing else: 4 to 9 s a set. KIND: lib, or tests, whose
# optimisation and whose code for executables differ, or computing_tests (runahead_quick_to_build).
function(runahead_precompile target kind)
  if(NOT ARGN)
    return()
  endif()
  list(JOIN ARGN _ set)
  set(host runahead_precompiled_${kind}_${set})
  if(NOT TARGET ${host})
    file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/${host}.cc CONTENT "// Of cmake/runahead_targets.cmake.\n")
    add_library(${host} OBJECT ${CMAKE_BINARY_DIR}/${host}.cc)
    target_include_directories(${host} PRIVATE ${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR})
    target_link_libraries(${host} PRIVATE runahead_base $<$<NOT:$<STREQUAL:${kind},lib>>:GTest::gmock>)
    foreach(library ${ARGN})
      target_precompile_headers(${host} PRIVATE ${RUNAHEAD_PRECOMPILE_${library}})
    endforeach()
    if(NOT kind STREQUAL lib)
      set_target_properties(${host} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
      target_compile_options(${host} PRIVATE -fPIE)
      runahead_test_options(${host} ${kind})
    endif()
  endif()
  target_precompile_headers(${target} REUSE_FROM ${host})
endfunction()

# Sources of a target, some at once (RUNAHEAD_UNITY): most of a source's time goes into headers, templates and coroutines that the
# next one has, too. So nothing in an unnamed namespace may be named as something in another source of its folder is.
function(runahead_unity target)
  if(RUNAHEAD_UNITY)
    set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 10)
    if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")  # of a class of a .cc that has a field of an unnamed namespace
      target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-Wno-subobject-linkage>)
    endif()
  endif()
endfunction()

function(runahead_library name)
  cmake_parse_arguments(ARG "" "EXCLUDE" "FOLDERS;LINKS;PRECOMPILE" ${ARGN})
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
  runahead_precompile(runahead_${name} lib ${ARG_PRECOMPILE})
  runahead_unity(runahead_${name})
endfunction()

# Tests are compiled oftener than they run. Under a sanitizer with clang most are compiled as they stand, in half the time; and
# paths through a test are no fuzzer's. KIND: computing_tests themselves compute much, and would take ten times as long.
function(runahead_test_options target kind)
  set(level -O1)
  if(RUNAHEAD_SANITIZE AND kind STREQUAL tests AND CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
    set(level -O0)
  endif()
  target_compile_options(${target} PRIVATE $<$<CONFIG:Release>:${level}>)
  if(RUNAHEAD_FUZZ)
    target_compile_options(${target} PRIVATE -fno-sanitize=fuzzer-no-link)
  endif()
endfunction()

function(runahead_quick_to_build target)
  cmake_parse_arguments(ARG "COMPUTING" "" "PRECOMPILE" ${ARGN})
  set(kind tests)
  if(ARG_COMPUTING AND RUNAHEAD_SANITIZE)
    set(kind computing_tests)
  endif()
  runahead_test_options(${target} ${kind})
  runahead_precompile(${target} ${kind} gtest ${ARG_PRECOMPILE})
endfunction()

function(runahead_tests name)
  cmake_parse_arguments(ARG "COMPUTING" "EXCLUDE" "LINKS;LABELS;PRECOMPILE" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cc)
  if(ARG_EXCLUDE)
    list(FILTER sources EXCLUDE REGEX ${ARG_EXCLUDE})
  endif()
  add_executable(${name}_tests ${sources})
  target_link_libraries(${name}_tests PRIVATE ${ARG_LINKS} GTest::gtest GTest::gmock GTest::gtest_main)
  target_compile_definitions(${name}_tests PRIVATE RUNAHEAD_SOURCE_DIR="${CMAKE_SOURCE_DIR}"
                             RUNAHEAD_BINARY_DIR="${CMAKE_BINARY_DIR}")
  set(computing "")
  if(ARG_COMPUTING)
    set(computing COMPUTING)
  endif()
  runahead_quick_to_build(${name}_tests ${computing} PRECOMPILE ${ARG_PRECOMPILE})
  runahead_unity(${name}_tests)
  add_test(NAME ${name} COMMAND $<TARGET_FILE:${name}_tests>)
  set_tests_properties(${name} PROPERTIES LABELS "unit;${ARG_LABELS}" TIMEOUT 600)
endfunction()
