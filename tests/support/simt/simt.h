// A grid of CUDA threads on one CPU core: the source of a kernel, compiled by g++ over this header instead of by nvcc, runs here
// and is tested here. kernels/cuda/device.h is where kernels meet it; a kernel uses what is there and nothing else of CUDA.
//   model    blocks one after the other, a fiber a thread, warps of 32; a thread runs until it waits for others.
//   faults   end the launch with simt::Fault, which says what and where:
//              a barrier that some threads never reach, or that they reach at different places;
//              an operation of a warp that not all its lanes join;
//              an access to shared memory that is out of bounds, or races with another since the last barrier, or reads
//              what nobody wrote.
//            Global memory is the test's own: AddressSanitizer checks it.
//   not      speed, and memory order between blocks: those need the device.
//   threads  launches of several host threads do not disturb each other.
// Only tests see this folder.
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <span>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

namespace simt {

struct Dim3 {
  unsigned x = 1, y = 1, z = 1;
};

class Fault : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Where in the source a thread is.
struct Site {
  const char* file = "";
  int line = 0;
  bool operator==(const Site& other) const { return line == other.line && std::strcmp(file, other.file) == 0; }
};
#define SIMT_SITE \
  ::simt::Site { __FILE__, __LINE__ }

inline constexpr unsigned kWarp = 32;

// Runs `kernel` once for each thread of each block. threads: a multiple of 32, at most 1,024.
void launch(Dim3 grid, unsigned threads, const std::function<void()>& kernel);

// Of the thread that runs now.
Dim3 thread_index();
Dim3 block_index();
Dim3 block_size();
Dim3 grid_size();

void barrier(Site site);  // of the block
void warp_barrier(Site site);

// What every lane of a warp brings is there when the last one has come; then `compute` makes what each takes away.
void collective(Site site, std::span<const std::byte> in, std::span<std::byte> out,
                const std::function<void(std::span<const std::byte> all_in, std::span<std::byte> all_out)>& compute);
template <class Out, class In, class Compute>
Out collective(Site site, const In& in, Compute compute) {
  static_assert(std::is_trivially_copyable_v<In> && std::is_trivially_copyable_v<Out>);
  Out out;
  collective(site, std::as_bytes(std::span(&in, 1)), std::as_writable_bytes(std::span(&out, 1)),
             [&](std::span<const std::byte> all_in, std::span<std::byte> all_out) {
               std::array<In, kWarp> lanes;
               std::array<Out, kWarp> results;
               std::memcpy(lanes.data(), all_in.data(), all_in.size());
               compute(lanes, results);
               std::memcpy(all_out.data(), results.data(), all_out.size());
             });
  return out;
}

// d += A B in the fragments of PTX's mma.m16n8k16 with bf16 and sums in fp32: A [16, 16], B [16, 8], d [16, 8].
void multiply_bf16(Site site, float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);

// Memory that the threads of a block share, watched word by word.
class SharedMemory {
 public:
  SharedMemory(const char* name, size_t count, size_t element_bytes);
  std::byte* at(size_t index, bool write);  // notes the access; throws Fault
  // Of a copy that was asked for, and is awaited: nobody uses the element between the two.
  void expect_copy(size_t index);
  std::byte* land_copy(size_t index);

 private:
  struct Access {
    uint32_t epoch = 0;  // 0: never
    uint32_t warp_epoch = 0;
    uint16_t thread = 0;
    bool many = false;  // threads
    bool many_warps = false;
  };
  std::string element(size_t index) const;
  void check(size_t index, bool write) const;
  bool races(const Access& before) const;
  void note(Access& access) const;

  const char* name_;
  size_t element_bytes_;
  std::vector<std::byte> bytes_;
  std::vector<bool> on_the_way_;
  std::vector<Access> writes_, reads_;
};
// The block's memory of this declaration: one `key` each.
SharedMemory& shared_memory(const void* key, const char* name, size_t count, size_t element_bytes);

void copy_later(SharedMemory& to, size_t index, const std::byte* from, size_t count, size_t element_bytes);
void close_copies();  // what was said since the last call is a group
void await_copies(unsigned left);  // carries out all groups of this thread but the newest `left`

template <class T>
class Shared {
 public:
  class Reference {
   public:
    Reference(SharedMemory* memory, size_t index) : memory_(memory), index_(index) {}
    operator T() const {
      T value;
      std::memcpy(&value, memory_->at(index_, false), sizeof(T));
      return value;
    }
    Reference& operator=(T value) {
      std::memcpy(memory_->at(index_, true), &value, sizeof(T));
      return *this;
    }
    Reference& operator=(const Reference& other) { return *this = T(other); }
    Reference& operator+=(T value) { return *this = T(T(*this) + value); }

   private:
    SharedMemory* memory_;
    size_t index_;
  };

  Shared(SharedMemory* memory, size_t begin) : memory_(memory), begin_(begin) {}
  template <std::integral I>
  Reference operator[](I index) const {
    return {memory_, begin_ + static_cast<size_t>(index)};  // a negative one is beyond the end
  }
  template <std::integral I>
  Shared operator+(I count) const {
    return {memory_, begin_ + static_cast<size_t>(count)};
  }
  // As cp.async does: the values (zeros from nullptr) may come at any time until the thread awaits them.
  void copy_later(const T* from, size_t count) const {
    simt::copy_later(*memory_, begin_, reinterpret_cast<const std::byte*>(from), count, sizeof(T));
  }

 private:
  SharedMemory* memory_;
  size_t begin_;
};

// T name[count] in shared memory.
#define SIMT_SHARED(T, name, count)    \
  static const char name##_simt_key{}; \
  ::simt::Shared<T> name(&::simt::shared_memory(&name##_simt_key, #name, (count), sizeof(T)), 0)

}  // namespace simt
