// Context: where a fiber of the emulation stands, and the way from one to another. On x86-64 a switch is a dozen instructions;
// ucontext's, which calls the kernel twice, took nine tenths of an emulated run. It is used elsewhere, and under a sanitizer,
// which knows it.
#pragma once

#include <cstddef>
#include <span>

#if !defined(__x86_64__) || defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SIMT_UCONTEXT 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SIMT_UCONTEXT 1
#endif
#endif

#ifdef SIMT_UCONTEXT
#include <ucontext.h>
#endif

namespace simt {

class Context {
 public:
  // Begins with `entry`, which never returns, on this stack when it is first switched to.
  void start(std::span<std::byte> stack, void (*entry)());
  // Leaves the running context here and goes on with `to`.
  void switch_to(Context& to);

 private:
#ifdef SIMT_UCONTEXT
  ucontext_t context_{};
#else
  void* stack_pointer_ = nullptr;
#endif
};

}  // namespace simt
