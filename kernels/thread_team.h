// ThreadTeam: the threads of one engine. The caller is thread 0; the others wait for work, a short spin and then asleep
// in the kernel, so that an idle engine burns nothing.
//   exact    who does which part never changes a result: parts write disjoint memory and sum nothing across parts.
//   threads  one caller at a time; a part must not call the team again.
//   numbers  denormals are flushed on every thread for the time of a run: they slow arithmetic down a hundredfold, and
//            the bf16 instruction flushes them anyway.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

namespace runahead {

// While it lives, the calling thread flushes denormal results and takes denormal operands as zero.
class FlushDenormals {
 public:
  FlushDenormals();
  ~FlushDenormals();
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
  uint32_t saved_ = 0;
};

class ThreadTeam {
 public:
  explicit ThreadTeam(int32_t threads);
  ~ThreadTeam();
  ThreadTeam(const ThreadTeam&) = delete;
  ThreadTeam& operator=(const ThreadTeam&) = delete;

  int32_t size() const { return static_cast<int32_t>(helpers_.size()) + 1; }

  // fn(part, thread) for every part in [0, parts), each once; parts are taken in ascending order by whoever is free.
  using Part = std::function<void(int32_t part, int32_t thread)>;
  void run(int32_t parts, const Part& fn);

 private:
  void help(int32_t thread);
  void take_parts(int32_t thread);

  // Written by the caller before `round_` grows, read by the helpers after.
  const Part* fn_ = nullptr;
  int32_t parts_ = 0;

  alignas(64) std::atomic<uint32_t> round_{0};
  alignas(64) std::atomic<int32_t> next_part_{0};
  alignas(64) std::atomic<int32_t> busy_{0};  // helpers that have not finished this round
  std::atomic<bool> stopping_{false};
  std::vector<std::thread> helpers_;
};

}  // namespace runahead
