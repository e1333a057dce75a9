// Memory of a device, by the op table of kernels/cuda. An allocation that fails gives an empty one, for what is made at the
// start, or throws std::bad_alloc, for what a request needs: its lane tells the actor, and the attempt ends (compute_lane.h).
//   owner   one allocation each; moved, not copied.
#pragma once

#include <cstddef>
#include <new>
#include <span>
#include <utility>

#include "base/check.h"
#include "kernels/cuda/cuda_ops.h"

namespace runahead {

template <class T>
class DeviceArray {
 public:
  DeviceArray() = default;
  DeviceArray(const cuda::CudaOps& ops, size_t size)
      : ops_(&ops), data_(static_cast<T*>(ops.allocate(size * sizeof(T)))), size_(data_ == nullptr ? 0 : size) {}
  DeviceArray(DeviceArray&& other) noexcept { swap(other); }
  DeviceArray& operator=(DeviceArray&& other) noexcept {
    swap(other);
    return *this;
  }
  ~DeviceArray() {
    if (data_ != nullptr) ops_->release(address());
  }

  bool is_empty() const { return data_ == nullptr; }
  size_t size() const { return size_; }
  T* data() const { return data_; }
  T* at(size_t index) const {
    RUNAHEAD_CHECK(index < size_, "an element of the device's array");
    return data_ + index;
  }
  void fill(std::span<const T> values) const {
    RUNAHEAD_CHECK(values.size() <= size_, "they fit");
    ops_->to_device(address(), static_cast<const void*>(values.data()), values.size_bytes());
  }
  void clear() const { ops_->clear(address(), size_ * sizeof(T)); }

 private:
  void* address() const { return const_cast<void*>(static_cast<const void*>(data_)); }
  void swap(DeviceArray& other) noexcept {
    std::swap(ops_, other.ops_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
  }

  const cuda::CudaOps* ops_ = nullptr;
  T* data_ = nullptr;
  size_t size_ = 0;
};

template <class T>
DeviceArray<T> need_device_array(const cuda::CudaOps& ops, size_t size) {
  DeviceArray<T> array(ops, size);
  if (array.is_empty()) throw std::bad_alloc();
  return array;
}

}  // namespace runahead
