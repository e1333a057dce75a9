// GenerationMemory: the room for prompts and answers of all requests in work. A request takes what it may come to hold before any
// of it is there, so that the sum is never more than was printed at the start (services/process/memory_sum.h).
//   threads  the io_context thread.
//   owner    outlives its holds.
#pragma once

#include <span>
#include <utility>

#include "actors/inference.h"

namespace runahead {

class GenerationMemory {
 public:
  // Room that is taken; given back at its end.
  class Hold {
   public:
    Hold() = default;
    Hold(GenerationMemory& memory, size_t bytes) : memory_(&memory), bytes_(bytes) { memory.used_bytes_ += bytes; }
    Hold(Hold&& other) noexcept : memory_(std::exchange(other.memory_, nullptr)), bytes_(other.bytes_) {}
    Hold& operator=(Hold&& other) noexcept {
      std::swap(memory_, other.memory_);
      std::swap(bytes_, other.bytes_);
      return *this;
    }
    ~Hold() {
      if (memory_ != nullptr) memory_->used_bytes_ -= bytes_;
    }

   private:
    GenerationMemory* memory_ = nullptr;  // null: none
    size_t bytes_ = 0;
  };

  explicit GenerationMemory(size_t bytes_max) : bytes_max_(bytes_max) {}

  // For what the choices of one request may come to, which are read as they are made, or when they are whole. kOverloaded;
  // kTooLarge for more than there is.
  Result<Hold> take(std::span<const InferenceRequest> choices, bool streamed);
  size_t used_bytes() const { return used_bytes_; }

 private:
  const size_t bytes_max_;
  size_t used_bytes_ = 0;
};

}  // namespace runahead
