#include "context.h"

#include <cstdint>

#ifdef SIMT_UCONTEXT

namespace simt {

void Context::start(std::span<std::byte> stack, void (*entry)()) {
  getcontext(&context_);
  context_.uc_stack.ss_sp = stack.data();
  context_.uc_stack.ss_size = stack.size();
  context_.uc_link = nullptr;
  makecontext(&context_, entry, 0);
}

void Context::switch_to(Context& to) { swapcontext(&context_, &to.context_); }

}  // namespace simt

#else

// Keeps what the System V ABI says a function keeps: the rest is the caller's.
extern "C" void simt_switch(void** leave, void* go_on);
asm(R"(
.text
.globl simt_switch
.type simt_switch, @function
simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size simt_switch, .-simt_switch
.section .note.GNU-stack, "", @progbits
.text
)");

namespace simt {

void Context::start(std::span<std::byte> stack, void (*entry)()) {
  constexpr size_t kRegisters = 6;
  std::byte* end = stack.data() + stack.size();
  end -= reinterpret_cast<uintptr_t>(end) % 16;
  auto* top = reinterpret_cast<void**>(end) - 1;  // as if entry had been called: 8 below a multiple of 16
  *top = nullptr;
  *--top = reinterpret_cast<void*>(entry);
  for (size_t i = 0; i < kRegisters; ++i) *--top = nullptr;
  stack_pointer_ = static_cast<void*>(top);
}

void Context::switch_to(Context& to) { simt_switch(&stack_pointer_, to.stack_pointer_); }

}  // namespace simt

#endif
