# One kernel source, several instruction sets. runahead_isa_kernels(target source [bf16_source]) compiles `source` once per
# instruction set of this processor family, each into its own namespace (RUNAHEAD_ISA), and adds the objects to `target`;
# bf16_source, where there is one, for what is the set below (RUNAHEAD_ISA_BELOW) with products of bf16.
# -Wno-uninitialized: GCC 12 reports its own intrinsics. -O3: the register tiles are loops
# with constant bounds that must be unrolled. -fno-math-errno: sqrt is one instruction.
set(RUNAHEAD_AVX512_FLAGS -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mavx2 -mfma -mf16c
    -mprefer-vector-width=512)
# Under a sanitizer the tiles stay at -O1: unrolled and checked at each access, one file takes six minutes to compile.
set(RUNAHEAD_KERNEL_OPTIMISATION -O3)
# The loops over 16 lanes that stand for a vector in generic, unrolled by the tiles, take GCC 12 seven minutes at -O3, 90 s at -O2
# and 41 s at -O1, whose code is a fifth slower. Of x86 only processors from before 2013 need it.
set(RUNAHEAD_GENERIC_OPTIMISATION -O2 -fno-tree-slp-vectorize)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(RUNAHEAD_GENERIC_OPTIMISATION -O1)
endif()
if(RUNAHEAD_SANITIZE)
  set(RUNAHEAD_KERNEL_OPTIMISATION -O1)
  set(RUNAHEAD_GENERIC_OPTIMISATION)
endif()
function(runahead_isa_kernels target source)
  set(isas generic)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    list(APPEND isas avx2 avx512)
    if(NOT RUNAHEAD_SANITIZE)  # avx512 with two instructions more, and a minute of clang
      list(APPEND isas avx512bf16)
      target_compile_definitions(${target} PRIVATE RUNAHEAD_AVX512BF16_KERNELS)
    endif()
    set(flags_avx2 -mavx2 -mfma -mf16c)
    set(flags_avx512 ${RUNAHEAD_AVX512_FLAGS})
    set(flags_avx512bf16 ${RUNAHEAD_AVX512_FLAGS} -mavx512bf16)
    if(RUNAHEAD_SANITIZE MATCHES undefined)  # half of a minute and a half; the same templates are checked in the other two
      list(APPEND flags_avx512 -fno-sanitize=undefined)
    endif()
    target_compile_definitions(${target} PRIVATE RUNAHEAD_X86_KERNELS)
  endif()
  set(flags_generic ${RUNAHEAD_GENERIC_OPTIMISATION})
  foreach(isa ${isas})
    if(isa STREQUAL avx512bf16 AND ARGN)
      add_library(${target}_${isa} OBJECT ${ARGN})
      target_compile_definitions(${target}_${isa} PRIVATE RUNAHEAD_ISA_BELOW=avx512)
    else()
      add_library(${target}_${isa} OBJECT ${source})
    endif()
    target_include_directories(${target}_${isa} PRIVATE ${CMAKE_SOURCE_DIR})
    target_compile_definitions(${target}_${isa} PRIVATE RUNAHEAD_ISA=${isa})
    target_compile_options(${target}_${isa} PRIVATE ${RUNAHEAD_KERNEL_OPTIMISATION} -fno-math-errno
                           -Wno-ignored-attributes -Wno-uninitialized ${flags_${isa}})
    target_sources(${target} PRIVATE $<TARGET_OBJECTS:${target}_${isa}>)
  endforeach()
endfunction()
