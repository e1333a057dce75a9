#include "apart_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <map>
#include <mutex>
#include <string>

namespace runahead::cuda {
namespace {

struct Mapping {
  int fd = -1;
  size_t bytes = 0;
};
struct Handle {
  int32_t pid = 0, fd = 0;
};

std::mutex mutex;
std::map<void*, Mapping> mappings;

void* map(int fd, size_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) {
    close(fd);
    return nullptr;
  }
  const std::lock_guard lock(mutex);
  mappings[memory] = {fd, bytes};
  return memory;
}

void unmap(void* memory) {
  Mapping mapping;
  {
    const std::lock_guard lock(mutex);
    mapping = mappings.at(memory);
    mappings.erase(memory);
  }
  munmap(memory, mapping.bytes);
  close(mapping.fd);
}

}  // namespace

void* allocate_mapped(size_t bytes) {
  const int fd = memfd_create("emulated device", MFD_CLOEXEC);
  if (fd < 0 || ftruncate(fd, static_cast<off_t>(bytes)) != 0) return nullptr;
  void* memory = map(fd, bytes);
  if (memory != nullptr) std::memset(memory, 0xff, bytes);
  return memory;
}

void release_mapped(void* memory) { unmap(memory); }

bool share_mapped(void* memory, void* handle) {
  const std::lock_guard lock(mutex);
  const auto found = mappings.find(memory);
  if (found == mappings.end()) return false;
  const Handle made{getpid(), found->second.fd};
  std::memset(handle, 0, 64);
  std::memcpy(handle, &made, sizeof made);
  return true;
}

void* open_mapped(const void* handle, size_t* bytes) {
  Handle shared;
  std::memcpy(&shared, handle, sizeof shared);
  const std::string path = "/proc/" + std::to_string(shared.pid) + "/fd/" + std::to_string(shared.fd);
  const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC);
  struct stat size{};
  if (fd < 0 || fstat(fd, &size) != 0) return nullptr;
  *bytes = static_cast<size_t>(size.st_size);
  return map(fd, *bytes);
}

void close_mapped(void* opened) { unmap(opened); }

}  // namespace runahead::cuda
