# RUNAHEAD_CUDA: librunahead_cuda.so, kernels/cuda for NVIDIA's devices, beside the program, which opens it when a device is
# asked for. Needs nvcc: of the machine (CUDACXX, PATH, /usr/local/cuda), or of PyPI's packages (deploy/setup.sh, setup_cuda).
# The program itself links nothing of CUDA.
set(RUNAHEAD_CUDA_ARCHITECTURES "80-real;90a-real;100-real;80-virtual" CACHE STRING "what nvcc makes code for")
set(CMAKE_CUDA_ARCHITECTURES ${RUNAHEAD_CUDA_ARCHITECTURES})
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
  find_program(CMAKE_CUDA_COMPILER nvcc PATHS /usr/local/cuda/bin)
  if(NOT CMAKE_CUDA_COMPILER)
    message(FATAL_ERROR "RUNAHEAD_CUDA needs nvcc: install the CUDA toolkit 12.8 or newer, or name it with CUDACXX")
  endif()
endif()
enable_language(CUDA)

set(CMAKE_CUDA_STANDARD 17)  # CMake 3.25 knows no CUDA20 and would ask for C++'s 23: kernels/cuda has the flag
set(CMAKE_CUDA17_STANDARD_COMPILE_OPTION "")
set(CMAKE_CUDA17_EXTENSION_COMPILE_OPTION "")
