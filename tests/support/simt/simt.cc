#include "simt.h"

#include <algorithm>
#include <array>
#include <bit>
#include <deque>
#include <map>
#include <memory>
#include <utility>

#include "context.h"

namespace simt {
namespace {

constexpr size_t kStackBytes = 128 << 10;

enum class State { kReady, kAtBarrier, kAtWarp, kDone };

struct Copy {
  SharedMemory* to;
  size_t index;
  const std::byte* from;
  size_t count, element_bytes;
};

struct Fiber {
  Context context;
  std::unique_ptr<std::byte[]> stack = std::make_unique<std::byte[]>(kStackBytes);
  State state = State::kDone;
  Site site;
  std::vector<Copy> open_copies;
  std::deque<std::vector<Copy>> closed_copies;
};

struct Warp {
  Site site;
  size_t in_bytes = 0, out_bytes = 0;
  unsigned arrived = 0;
  uint32_t epoch = 1;  // warp barriers that were passed
  std::vector<std::byte> in, out;
  std::array<std::byte*, kWarp> takes{};  // where each lane wants what it takes away
};

struct Block {
  Dim3 grid, index;
  unsigned threads = 0, current = 0;
  uint32_t epoch = 1;  // barriers that were passed
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  std::map<const void*, SharedMemory> shared;
  Context scheduler;
  const std::function<void()>* kernel = nullptr;
  std::string fault;
};

thread_local Block* block = nullptr;
thread_local std::vector<Fiber> idle_fibers;  // of earlier launches, for their stacks

std::string name_of(Site site) { return std::string(site.file) + ":" + std::to_string(site.line); }
std::string current_thread() {
  return "thread " + std::to_string(block->current) + " of block (" + std::to_string(block->index.x) + ", " +
         std::to_string(block->index.y) + ", " + std::to_string(block->index.z) + ")";
}
[[noreturn]] void fail(const std::string& what) { throw Fault(current_thread() + ": " + what); }

// Whoever comes next and can go on; block->threads: nobody.
unsigned next_ready() {
  for (unsigned step = 1; step <= block->threads; ++step) {
    const unsigned thread = (block->current + step) % block->threads;
    if (block->fibers[thread].state == State::kReady) return thread;
  }
  return block->threads;
}

// To the next one at once, or to the scheduler if there is none: a switch costs two calls of the kernel.
void wait_in(State state) {
  Fiber& fiber = block->fibers[block->current];
  fiber.state = state;
  const unsigned next = block->fault.empty() ? next_ready() : block->threads;
  if (next == block->threads) {
    fiber.context.switch_to(block->scheduler);
  } else {
    block->current = next;
    fiber.context.switch_to(block->fibers[next].context);
  }
}

void run_fiber() {
  try {
    (*block->kernel)();
  } catch (const Fault& fault) {
    block->fault = fault.what();
  }
  wait_in(State::kDone);
}

void start_fiber(Fiber& fiber) {
  fiber.context.start({fiber.stack.get(), kStackBytes}, run_fiber);
  fiber.open_copies.clear();
  fiber.closed_copies.clear();
  fiber.state = State::kReady;
}

size_t count(const Block& b, State state) {
  return static_cast<size_t>(std::ranges::count(b.fibers, state, &Fiber::state));
}

// Nobody can go on: either all are at one barrier, which opens, or something is wrong.
void open_barrier(Block& b) {
  const size_t waiting = count(b, State::kAtBarrier);
  const auto stuck = std::ranges::find(b.fibers, State::kAtWarp, &Fiber::state);
  if (stuck != b.fibers.end()) throw Fault("not all lanes of a warp joined the operation at " + name_of(stuck->site));
  const auto first = std::ranges::find(b.fibers, State::kAtBarrier, &Fiber::state);
  if (waiting < b.threads)
    throw Fault(std::to_string(b.threads - waiting) + " of " + std::to_string(b.threads) +
                " threads ended without reaching the barrier at " + name_of(first->site));
  for (Fiber& fiber : b.fibers) {
    if (!(fiber.site == first->site))
      throw Fault("threads wait at different barriers: " + name_of(first->site) + " and " + name_of(fiber.site));
    fiber.state = State::kReady;
  }
  ++b.epoch;
}

void run_block(Block& b) {
  b.epoch = 1;
  b.shared.clear();
  b.warps.assign(b.threads / kWarp, {});
  for (Fiber& fiber : b.fibers) start_fiber(fiber);
  while (count(b, State::kDone) < b.threads) {
    b.current = b.threads - 1;
    b.current = next_ready();
    if (b.current == b.threads) {
      open_barrier(b);
      continue;
    }
    b.scheduler.switch_to(b.fibers[b.current].context);  // until nobody can go on, or a fault
    if (!b.fault.empty()) throw Fault(b.fault);
  }
}

}  // namespace

void launch(Dim3 grid, unsigned threads, const std::function<void()>& kernel) {
  if (threads == 0 || threads % kWarp != 0 || threads > 1024)
    throw Fault("a block has whole warps, 1,024 threads at most");
  Block b;
  b.grid = grid, b.threads = threads, b.kernel = &kernel;
  b.fibers = std::move(idle_fibers);
  b.fibers.resize(threads);
  block = &b;
  struct End {
    Block& b;
    ~End() {
      idle_fibers = std::move(b.fibers);
      block = nullptr;
    }
  } end{b};
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; ++x) {
        b.index = {x, y, z};
        run_block(b);
      }
}

Dim3 thread_index() { return {block->current, 0, 0}; }
Dim3 block_index() { return block->index; }
Dim3 block_size() { return {block->threads, 1, 1}; }
Dim3 grid_size() { return block->grid; }

void barrier(Site site) {
  block->fibers[block->current].site = site;
  wait_in(State::kAtBarrier);
}

void collective(Site site, std::span<const std::byte> in, std::span<std::byte> out,
                const std::function<void(std::span<const std::byte>, std::span<std::byte>)>& compute) {
  const unsigned self = block->current, lane = self % kWarp;
  Warp& warp = block->warps[self / kWarp];
  if (warp.arrived == 0) {
    warp.site = site, warp.in_bytes = in.size(), warp.out_bytes = out.size();
    warp.in.resize(kWarp * in.size());
    warp.out.resize(kWarp * out.size());
  } else if (!(warp.site == site) || warp.in_bytes != in.size() || warp.out_bytes != out.size()) {
    fail("lanes of a warp are at different operations: " + name_of(warp.site) + " and " + name_of(site));
  }
  std::ranges::copy(in, warp.in.begin() + static_cast<std::ptrdiff_t>(lane * in.size()));
  warp.takes[lane] = out.data();
  block->fibers[self].site = site;
  if (++warp.arrived < kWarp) return wait_in(State::kAtWarp);
  compute(warp.in, warp.out);
  warp.arrived = 0;
  for (unsigned other = 0; other < kWarp; ++other) {
    std::memcpy(warp.takes[other], warp.out.data() + other * out.size(), out.size());
    if (other != lane) block->fibers[self - lane + other].state = State::kReady;
  }
}

void warp_barrier(Site site) {
  collective<char>(site, char{}, [](const auto&, auto& results) {
    results.fill(0);
    ++block->warps[block->current / kWarp].epoch;
  });
}

void multiply_bf16(Site site, float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  struct In {
    uint32_t a[4], b[2];
  };
  const auto half = [](uint32_t pair, unsigned which) {
    return std::bit_cast<float>((which == 0 ? pair << 16 : pair & 0xffff0000u));
  };
  const auto sums = collective<std::array<float, 4>>(
      site, In{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}}, [&](const auto& lanes, auto& out) {
        float full_a[16][16], full_b[16][8];
        for (unsigned lane = 0; lane < kWarp; ++lane) {
          const unsigned row = lane / 4, pair = lane % 4 * 2;
          for (unsigned which = 0; which < 2; ++which) {
            for (unsigned i = 0; i < 4; ++i)
              full_a[row + i % 2 * 8][pair + which + i / 2 * 8] = half(lanes[lane].a[i], which);
            for (unsigned i = 0; i < 2; ++i) full_b[pair + which + i * 8][row] = half(lanes[lane].b[i], which);
          }
        }
        for (unsigned lane = 0; lane < kWarp; ++lane)
          for (unsigned i = 0; i < 4; ++i) {
            const unsigned row = lane / 4 + i / 2 * 8, col = lane % 4 * 2 + i % 2;
            float sum = 0;
            for (unsigned k = 0; k < 16; ++k) sum += full_a[row][k] * full_b[k][col];
            out[lane][i] = sum;
          }
      });
  for (size_t i = 0; i < sums.size(); ++i) d[i] += sums[i];
}

void copy_later(SharedMemory& to, size_t index, const std::byte* from, size_t count, size_t element_bytes) {
  for (size_t i = 0; i < count; ++i) to.expect_copy(index + i);
  block->fibers[block->current].open_copies.push_back({&to, index, from, count, element_bytes});
}

void close_copies() {
  Fiber& fiber = block->fibers[block->current];
  fiber.closed_copies.push_back(std::exchange(fiber.open_copies, {}));
}

void await_copies(unsigned left) {
  Fiber& fiber = block->fibers[block->current];
  for (; fiber.closed_copies.size() > left; fiber.closed_copies.pop_front())
    for (const Copy& copy : fiber.closed_copies.front())
      for (size_t i = 0; i < copy.count; ++i) {
        std::byte* to = copy.to->land_copy(copy.index + i);
        if (copy.from == nullptr) std::memset(to, 0, copy.element_bytes);
        else std::memcpy(to, copy.from + i * copy.element_bytes, copy.element_bytes);
      }
}

SharedMemory::SharedMemory(const char* name, size_t count, size_t element_bytes)
    : name_(name),
      element_bytes_(element_bytes),
      bytes_(count * element_bytes),
      on_the_way_(count),
      writes_(count),
      reads_(count) {}

// Whether nothing stands between that access and one that the running thread makes now.
bool SharedMemory::races(const Access& before) const {
  if (before.epoch != block->epoch) return false;
  if (!before.many && before.thread == block->current) return false;
  const bool own_warp = !before.many_warps && before.thread / kWarp == block->current / kWarp;
  return !own_warp || before.warp_epoch == block->warps[block->current / kWarp].epoch;
}

void SharedMemory::note(Access& access) const {
  const uint32_t warp_epoch = block->warps[block->current / kWarp].epoch;
  const auto thread = static_cast<uint16_t>(block->current);
  if (access.epoch != block->epoch) {
    access = {block->epoch, warp_epoch, thread, false, false};
    return;
  }
  access.many = access.many || access.thread != thread;
  access.many_warps = access.many_warps || access.thread / kWarp != thread / kWarp;
  access.thread = thread, access.warp_epoch = warp_epoch;
}

std::string SharedMemory::element(size_t index) const { return std::string(name_) + "[" + std::to_string(index) + "]"; }

void SharedMemory::check(size_t index, bool write) const {
  if (index >= writes_.size())
    fail(element(index) + " is beyond the " + std::to_string(writes_.size()) + " elements in shared memory");
  const auto told = [&](const char* what, const Access& other) {
    fail(std::string(what) + " thread " + std::to_string(other.thread) + " of " + element(index) +
         " without a barrier between");
  };
  if (on_the_way_[index]) fail("uses " + element(index) + ", to which a copy is on its way");
  if (!write && writes_[index].epoch == 0) fail("reads " + element(index) + ", which nobody wrote");
  if (races(writes_[index])) told(write ? "writes after the write by" : "reads after the write by", writes_[index]);
  if (write && races(reads_[index])) told("writes after the read by", reads_[index]);
}

std::byte* SharedMemory::at(size_t index, bool write) {
  check(index, write);
  note(write ? writes_[index] : reads_[index]);
  return bytes_.data() + index * element_bytes_;
}

// It may come at any time from now on.
void SharedMemory::expect_copy(size_t index) {
  check(index, true);
  note(writes_[index]);
  on_the_way_[index] = true;
}

std::byte* SharedMemory::land_copy(size_t index) {
  on_the_way_[index] = false;
  return at(index, true);
}

SharedMemory& shared_memory(const void* key, const char* name, size_t count, size_t element_bytes) {
  return block->shared.try_emplace(key, name, count, element_bytes).first->second;
}

}  // namespace simt
