# One kernel source, several instruction sets: see kernels/CMakeLists.txt.
