#include "kernels/thread_team.h"

#if defined(__SSE__)
#include <immintrin.h>
#endif

#include "base/check.h"

namespace runahead {
namespace {

// About 20 us: longer than the gap between two products of one layer, shorter than anybody would notice on a bill.
constexpr int kSpins = 500;

void pause_briefly() {
#if defined(__SSE__)
  _mm_pause();
#endif
}

template <class T>
void wait_while(std::atomic<T>& value, T old) {
  for (int i = 0; i < kSpins; ++i) {
    if (value.load(std::memory_order_acquire) != old) return;
    pause_briefly();
  }
  value.wait(old, std::memory_order_acquire);
}

}  // namespace

#if defined(__SSE__)
// MXCSR: bit 15 flushes results, bit 6 takes operands as zero.
FlushDenormals::FlushDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040u); }
FlushDenormals::~FlushDenormals() { _mm_setcsr(saved_); }
#else
FlushDenormals::FlushDenormals() {}
FlushDenormals::~FlushDenormals() {}
#endif

ThreadTeam::ThreadTeam(int32_t threads) {
  RUNAHEAD_CHECK(threads >= 1 && threads <= 1024, "an engine has between 1 and 1,024 threads");
  for (int32_t t = 1; t < threads; ++t) helpers_.emplace_back([this, t] { help(t); });
}

ThreadTeam::~ThreadTeam() {
  stopping_.store(true, std::memory_order_relaxed);
  round_.fetch_add(1, std::memory_order_release);
  round_.notify_all();
  for (std::thread& helper : helpers_) helper.join();
}

void ThreadTeam::take_parts(int32_t thread) {
  for (int32_t part; (part = next_part_.fetch_add(1, std::memory_order_relaxed)) < parts_;) (*fn_)(part, thread);
}

void ThreadTeam::run(int32_t parts, const Part& fn) {
  const FlushDenormals flush;
  fn_ = &fn;
  parts_ = parts;
  next_part_.store(0, std::memory_order_relaxed);
  if (parts > 1 && !helpers_.empty()) {
    busy_.store(static_cast<int32_t>(helpers_.size()), std::memory_order_relaxed);
    round_.fetch_add(1, std::memory_order_release);
    round_.notify_all();
    take_parts(0);
    for (int32_t left; (left = busy_.load(std::memory_order_acquire)) != 0;) wait_while(busy_, left);
  } else {
    take_parts(0);
  }
}

void ThreadTeam::help(int32_t thread) {
  const FlushDenormals flush;
  for (uint32_t seen = 0;;) {
    wait_while(round_, seen);
    seen = round_.load(std::memory_order_acquire);
    if (stopping_.load(std::memory_order_relaxed)) return;
    take_parts(thread);
    if (busy_.fetch_sub(1, std::memory_order_release) == 1) busy_.notify_one();
  }
}

}  // namespace runahead
