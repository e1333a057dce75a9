// Memory owners: AlignedBuffer (64-byte aligned, zeroed, huge pages asked for) and MappedFile (read-only mmap).
// Both are movable, not copyable; views are std::span.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

#include "base/result.h"

namespace runahead {

class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  // Zeroed. Buffers of 2 MiB and more are their own mapping with MADV_HUGEPAGE, and take memory only where they are
  // touched. Throws std::bad_alloc, as `new` does.
  explicit AlignedBuffer(size_t bytes);
  ~AlignedBuffer();
  AlignedBuffer(AlignedBuffer&& other) noexcept;
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept;

  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  size_t size() const { return size_; }
  template <class T>
  std::span<T> as() {
    return {reinterpret_cast<T*>(data_), size_ / sizeof(T)};
  }
  template <class T>
  std::span<const T> as() const {
    return {reinterpret_cast<const T*>(data_), size_ / sizeof(T)};
  }

 private:
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

class MappedFile {
 public:
  MappedFile() = default;
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  // kNotFound if it cannot be opened, kInvalidArgument if it is no regular file or empty.
  static Result<MappedFile> open(const std::filesystem::path& path);
  std::span<const std::byte> bytes() const { return {data_, size_}; }
  // The kernel may drop the pages from this process; they are read again when touched.
  void drop_pages() const;

 private:
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace runahead
