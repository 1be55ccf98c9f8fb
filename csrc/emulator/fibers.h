// Fibers: one host thread runs the threads of a block in turn, each on a stack of its own.
#pragma once
#include <sys/mman.h>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#include <cstddef>
#include <memory>

#include "emulator/runtime.h"

namespace emulator {

struct Context {
#if defined(__x86_64__)
  void* stack_pointer = nullptr;
#else
  ucontext_t state;
#endif
  const void* stack = nullptr;  // lowest address; AddressSanitizer must know the stack it is on
  size_t stack_bytes = 0;
  void* fake_stack = nullptr;
};

#if defined(__x86_64__)
// Saves what the ABI has a callee keep, and goes on where `to` was saved. noipa: the callers must not see which registers it leaves alone.
__attribute__((naked, noipa, no_sanitize("address", "undefined"))) inline void swap_stacks([[maybe_unused]] void** from, [[maybe_unused]] void* to) {
  asm("pushq %rbp\n\t"
      "pushq %rbx\n\t"
      "pushq %r12\n\t"
      "pushq %r13\n\t"
      "pushq %r14\n\t"
      "pushq %r15\n\t"
      "movq %rsp, (%rdi)\n\t"
      "movq %rsi, %rsp\n\t"
      "popq %r15\n\t"
      "popq %r14\n\t"
      "popq %r13\n\t"
      "popq %r12\n\t"
      "popq %rbx\n\t"
      "popq %rbp\n\t"
      "ret");
}
#endif

inline Context launcher;
inline Context* running = &launcher;
inline Context* left = nullptr;  // whom the last switch left

inline void arrive([[maybe_unused]] void* fake_stack) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake_stack, &left->stack, &left->stack_bytes);
#endif
}

inline void switch_to(Context& to) {
  Context& from = *running;
  left = &from;
  running = &to;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&from.fake_stack, to.stack, to.stack_bytes);
#endif
#if defined(__x86_64__)
  swap_stacks(&from.stack_pointer, to.stack_pointer);
#else
  swapcontext(&from.state, &to.state);
#endif
  arrive(from.fake_stack);
}

// Fibers outlive their block: each runs thread i of one block after another, so only the first block of a size pays for stacks. A stack lies between
// two pages that fault.
class Fibers {
 public:
  Fibers() : contexts_(new Context[kMostThreads]) {
    void* memory = mmap(nullptr, kMostThreads * kStride + kGuard, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) fail("no address space for the stacks of %u threads", kMostThreads);
    memory_ = static_cast<std::byte*>(memory);
  }
  ~Fibers() { munmap(memory_, kMostThreads * kStride + kGuard); }
  Fibers(const Fibers&) = delete;
  Fibers& operator=(const Fibers&) = delete;

  Context& operator[](unsigned thread) { return contexts_[thread]; }

  void reserve(unsigned threads, void (*entry)()) {
    for (; made_ < threads; ++made_) {
      std::byte* stack = memory_ + made_ * kStride + kGuard;
      if (mprotect(stack, kStack, PROT_READ | PROT_WRITE)) fail("no memory for the stack of thread %u", made_);
      // The tops are staggered, or all threads' frames would fall into the same few lines of the L1 cache.
      start(contexts_[made_], stack, kStack - made_ % 16 * 256, entry);
    }
  }

 private:
  static constexpr size_t kStack = 256 << 10, kGuard = 4096, kStride = kStack + kGuard;

  static void start(Context& context, std::byte* stack, size_t bytes, void (*entry)()) {
    context.stack = stack;
    context.stack_bytes = bytes;
#if defined(__x86_64__)
    void** top = reinterpret_cast<void**>(stack + bytes);
    *--top = nullptr;                         // no caller: unwinding ends here, and `entry` finds the stack aligned as after a call
    *--top = reinterpret_cast<void*>(entry);  // where swap_stacks returns to
    for (int i = 0; i < 6; ++i) *--top = nullptr;
    context.stack_pointer = top;
#else
    getcontext(&context.state);
    context.state.uc_stack.ss_sp = stack;
    context.state.uc_stack.ss_size = bytes;
    context.state.uc_link = nullptr;
    makecontext(&context.state, entry, 0);
#endif
  }

  std::unique_ptr<Context[]> contexts_;
  std::byte* memory_;
  unsigned made_ = 0;
};

// A fiber stays on the host thread that made it.
inline Fibers& fibers() {
  thread_local Fibers of_this_thread;
  return of_this_thread;
}

}  // namespace emulator
