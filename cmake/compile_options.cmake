# Flags of every target. Hot loops get their own instruction-set flags in cmake/isa.cmake.
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()
# Under a sanitizer -O1, which compiles faster: CI builds both sanitizers from nothing (tests/run.sh). -O0 would halve that
# again, and take ten times as long in the simulation.
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -g1")
if(RUNAHEAD_SANITIZE)
  set(CMAKE_CXX_FLAGS_RELEASE "-O1 -g1")
endif()
set(CMAKE_CXX_FLAGS_DEBUG "-O0 -g")
# -ffp-contract=off: a fused multiply-add only where the source asks for one, so that every ISA and every optimiser
# setting gives the same bits for the same code (docs/adr/0002-bit-exactness.md).
add_compile_options("$<$<COMPILE_LANGUAGE:C,CXX>:-Wall;-Wextra;-Wno-missing-field-initializers>")
add_compile_options("$<$<COMPILE_LANGUAGE:C,CXX>:-ffp-contract=off;-fno-strict-aliasing>")
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # GCC 12 reports these inside libstdc++ and Boost when coroutines are inlined; both are known false positives.
  add_compile_options(
    "$<$<COMPILE_LANGUAGE:C,CXX>:-Wno-maybe-uninitialized;-Wno-array-bounds;-Wno-stringop-overflow;-Wno-mismatched-new-delete>")
endif()
if(RUNAHEAD_SANITIZE)
  add_compile_options(-fsanitize=${RUNAHEAD_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${RUNAHEAD_SANITIZE})
endif()
if(RUNAHEAD_FUZZ)
  add_compile_options(-fsanitize=fuzzer-no-link)  # every library counts its edges, so that the fuzzers see new paths
endif()
find_program(CCACHE ccache)
if(CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  # Paths count from the source folder, so that a second checkout finds what the first one has compiled; precompiled headers
  # need the sloppiness, by ccache's manual.
  set(CMAKE_CXX_COMPILER_LAUNCHER
      ${CMAKE_COMMAND} -E env CCACHE_BASEDIR=${CMAKE_SOURCE_DIR} CCACHE_NOHASHDIR=true
      CCACHE_SLOPPINESS=pch_defines,time_macros ${CCACHE})
  set(CMAKE_C_COMPILER_LAUNCHER ${CMAKE_CXX_COMPILER_LAUNCHER})
endif()
