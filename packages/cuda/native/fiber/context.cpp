// Test only: the context switch: six registers and the stack pointer on x86-64, ucontext elsewhere.
#include "fiber/context.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if defined(__x86_64__)
extern "C" void lomo_fiber_switch(void** from, void* to);
asm(R"(
.text
.p2align 4
.globl lomo_fiber_switch
.hidden lomo_fiber_switch
.type lomo_fiber_switch,@function
lomo_fiber_switch:
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
.size lomo_fiber_switch,.-lomo_fiber_switch
)");
#endif

namespace lomo::fiber {

void prepare(Context& c, char* stack, std::size_t bytes, void (*enter)()) {
  c.bottom = stack + guard_bytes;
  c.size = bytes - guard_bytes;
  c.fake_stack = nullptr;
#if defined(__SANITIZE_ADDRESS__)
  ASAN_UNPOISON_MEMORY_REGION(c.bottom, c.size);
#endif
#if defined(__x86_64__)
  void** top = reinterpret_cast<void**>(stack + bytes) - 1;  // as after a call: 8 below a multiple of 16
  *--top = reinterpret_cast<void*>(enter);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  c.stack_pointer = top;
#else
  getcontext(&c.context);
  c.context.uc_stack.ss_sp = stack + guard_bytes;
  c.context.uc_stack.ss_size = bytes - guard_bytes;
  c.context.uc_link = nullptr;
  makecontext(&c.context, enter, 0);
#endif
}

void change(Context& from, Context& to, Context& host, [[maybe_unused]] bool forever) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(forever ? nullptr : &from.fake_stack, to.bottom, to.size);
#endif
#if defined(__x86_64__)
  lomo_fiber_switch(&from.stack_pointer, to.stack_pointer);
#else
  swapcontext(&from.context, &to.context);
#endif
  arrive(from, host);
}

void arrive([[maybe_unused]] Context& here, [[maybe_unused]] Context& host) {
#if defined(__SANITIZE_ADDRESS__)
  const void* bottom = nullptr;
  std::size_t size = 0;
  __sanitizer_finish_switch_fiber(here.fake_stack, &bottom, &size);
  if (&here == &host) return;
  host.bottom = bottom;
  host.size = size;
#endif
}

}  // namespace lomo::fiber
