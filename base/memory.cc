#include "base/memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/file_guard.h"

namespace runahead {
namespace {

constexpr size_t kHugePage = 2 << 20;  // x86-64

constexpr size_t kCacheLine = 64;

size_t rounded(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

size_t mapped_bytes(size_t bytes) { return rounded(bytes, kHugePage); }

}  // namespace

AlignedBuffer::AlignedBuffer(size_t bytes) : size_(bytes) {
  if (bytes == 0) return;
  if (bytes < kHugePage) {
    data_ = static_cast<std::byte*>(std::aligned_alloc(kCacheLine, rounded(bytes, kCacheLine)));
    if (data_ == nullptr) throw std::bad_alloc();
    std::memset(data_, 0, rounded(bytes, kCacheLine));
    return;
  }
  void* mapped = mmap(nullptr, mapped_bytes(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) throw std::bad_alloc();
  data_ = static_cast<std::byte*>(mapped);
  madvise(data_, mapped_bytes(bytes), MADV_HUGEPAGE);
}

AlignedBuffer::~AlignedBuffer() {
  if (size_ < kHugePage) {
    std::free(data_);
  } else {
    munmap(data_, mapped_bytes(size_));
  }
}

AlignedBuffer::AlignedBuffer(AlignedBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

AlignedBuffer& AlignedBuffer::operator=(AlignedBuffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

Result<MappedFile> MappedFile::open(const std::filesystem::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return fail(ErrorCode::kNotFound, "cannot open " + path.string() + ": " + std::strerror(errno));
  const bool leased = take_lease(fd);
  struct stat info{};
  const bool usable = fstat(fd, &info) == 0 && S_ISREG(info.st_mode) && info.st_size > 0;
  void* data = usable ? mmap(nullptr, static_cast<size_t>(info.st_size), PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;
  const int map_errno = errno;
  if (data == MAP_FAILED) close(fd);
  if (!usable) return fail(ErrorCode::kInvalidArgument, path.string() + " is not a regular file with content");
  if (data == MAP_FAILED)
    return fail(ErrorCode::kInternal, "cannot map " + path.string() + ": " + std::strerror(map_errno));
  MappedFile file;
  file.data_ = static_cast<const std::byte*>(data);
  file.size_ = static_cast<size_t>(info.st_size);
  guard_file(fd, leased, file.bytes(), path);
  return file;
}

MappedFile::~MappedFile() {
  if (data_ == nullptr) return;
  unguard_file(bytes());
  munmap(const_cast<std::byte*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

void MappedFile::drop_pages() const { drop_file_pages(bytes()); }

}  // namespace runahead
