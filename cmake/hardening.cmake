# What makes a fault of memory harder to use, for everything that we build but sanitizer builds, which find faults instead of
# standing them. tests/deploy/test_hardening.py reads all of it from the files that were built.
#
#   -fstack-protector-strong    a function with an array, or whose locals' address is taken, ends the process if its return
#                               address was written
#   -fstack-clash-protection    a large frame touches each page, so that it cannot step over the guard page into a thread's
#                               other memory
#   -fcf-protection=full        x86: each target of an indirect call begins with ENDBR64. The linker's note for the kernel
#                               says so only if all parts of the C runtime do, and those of Debian 12 do not: the code is
#                               ready, the kernel off
#   _FORTIFY_SOURCE=3           copies into buffers whose size the compiler knows, also at run time, are checked
#   _GLIBCXX_ASSERTIONS         indices of vectors, strings and spans are checked
#   PIE                         the program itself is somewhere else at each start, too
#   relro, now                  the tables of the linker are filled in at the start and read-only from then on
#   noexecstack                 no stack can be executed, whatever an object file forgets to say
#   separate-code               no page has both code and data
include_guard()
if(RUNAHEAD_SANITIZE)
  add_compile_options($<$<AND:$<COMPILE_LANGUAGE:C,CXX>,$<CONFIG:Release>>:-fstack-protector-strong>)
  add_compile_definitions($<$<CONFIG:Release>:_GLIBCXX_ASSERTIONS>)
  return()
endif()

set(RUNAHEAD_HARDENING -fstack-protector-strong -fstack-clash-protection)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  list(APPEND RUNAHEAD_HARDENING -fcf-protection=full)
endif()
# -U: Ubuntu's compiler defines it itself, as 2. It needs an optimiser.
set(RUNAHEAD_HARDENING_DEFINES -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3 -D_GLIBCXX_ASSERTIONS)
add_compile_options("$<$<COMPILE_LANGUAGE:C,CXX>:${RUNAHEAD_HARDENING}>"
                    "$<$<AND:$<COMPILE_LANGUAGE:C,CXX>,$<CONFIG:Release>>:${RUNAHEAD_HARDENING_DEFINES}>")
# nvcc hands them to the compiler of the host's half.
list(JOIN RUNAHEAD_HARDENING "," host_options)
add_compile_options("$<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=${host_options}>")
add_link_options(LINKER:-z,relro,-z,now,-z,noexecstack,-z,separate-code)

include(CheckPIESupported)
check_pie_supported(LANGUAGES CXX)  # -pie when linking; -fPIE alone comes with CMAKE_POSITION_INDEPENDENT_CODE
set(CMAKE_SKIP_RPATH ON)  # libraries come from the system, ours by the path that we open
