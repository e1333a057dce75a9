// Memory of the emulated device that other processes can have, as they have a GPU's by CUDA IPC: a file of memory that is mapped.
#pragma once

#include <cstddef>

namespace runahead::cuda {

void* allocate_mapped(size_t bytes);  // filled with 0xff; nullptr: there is no room
void release_mapped(void* memory);
bool share_mapped(void* memory, void* handle);  // 64 bytes
void* open_mapped(const void* handle, size_t* bytes);  // of this process or another; nullptr: it is gone
void close_mapped(void* opened);

}  // namespace runahead::cuda
