// Test only: where a fiber stands, and the way from one to another.
#pragma once

#include <cstddef>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace lomo::fiber {

struct Context {
#if defined(__x86_64__)
  void* stack_pointer = nullptr;
#else
  ucontext_t context{};
#endif
  // What the address sanitizer is told.
  void* fake_stack = nullptr;
  const void* bottom = nullptr;
  std::size_t size = 0;
};

constexpr std::size_t guard_bytes = 4096;  // at the low end of every stack, never touched

// A fiber that begins with `enter`, which must not return, when control first comes to it.
void prepare(Context& c, char* stack, std::size_t bytes, void (*enter)());
// Control goes from one to the other; `forever` where nobody comes back. `host` is the thread's own stack.
void change(Context& from, Context& to, Context& host, bool forever);
// To be called first by `enter`.
void arrive(Context& here, Context& host);

}  // namespace lomo::fiber
