#include "sim_world.h"

#include <algorithm>
#include <boost/asio/co_spawn.hpp>

#include "base/check.h"

namespace runahead::test {
namespace {

constexpr Duration kForever = std::chrono::hours(24 * 365);  // later than any seed's end; keeps sums from overflowing
constexpr double kDriftMax = 0.0005;  // more than a bad quartz: 500 ppm

}  // namespace

void TimerHeap::push(Time due, uint64_t sequence, Action action) {
  timers_.push_back({due, sequence, std::move(action)});
  std::ranges::push_heap(timers_, later);
}

Action TimerHeap::pop() {
  std::ranges::pop_heap(timers_, later);
  Action action = std::move(timers_.back().action);
  timers_.pop_back();
  return action;
}

Process::Process(SimWorld& world, NodeId node, uint64_t incarnation)
    : world_(world),
      node_(node),
      incarnation_(incarnation),
      rate_(1 + kDriftMax * (2 * world.rng.uniform() - 1)),
      offset_(world.rng.duration(Duration(0), std::chrono::hours(1))) {}

Time Process::now() const {
  const auto passed = static_cast<double>((world_.now_ + private_time_).count());
  return offset_ + Time(static_cast<int64_t>(passed * rate_));
}

void Process::post(Action action) {
  if (state_ != State::kEnded) ready_.push_back(std::move(action));
}

void Process::at(Time due, Action action) {
  if (state_ == State::kEnded) return;
  const Time local = now();
  const Duration left = due >= local + kForever ? kForever : std::max(Duration(0), due - local);
  // One nanosecond more than the rounding may lose, so that a timer never fires before its time.
  const auto world_left = Duration(static_cast<int64_t>(static_cast<double>(left.count()) / rate_) + 1);
  timers_.push(world_.now_ + private_time_ + world_left, world_.sequence_++, std::move(action));
}

asio::any_io_executor Process::executor() { return ProcessExecutor{&world_, this}; }

void Process::spawn(asio::awaitable<void> coroutine) {
  ++coroutines_;
  asio::co_spawn(executor(), std::move(coroutine), [this](std::exception_ptr error) {
    RUNAHEAD_CHECK(!error, "an exception left a coroutine");
    --coroutines_;
  });
}

SimWorld::SimWorld(uint64_t seed) : rng(seed) {}

SimWorld::~SimWorld() {
  for (auto& process : processes_) end(*process);
  timers_.clear();
  // What the services of this context still hold is destroyed here: coroutines post as they go, through processes.
  shutdown();
  destroy();
}

void SimWorld::at(Time due, Action action) { timers_.push(due, sequence_++, std::move(action)); }

Process& SimWorld::start(NodeId node) {
  processes_.push_back(std::make_unique<Process>(*this, node, ++incarnations_));
  live_.push_back(processes_.back().get());
  return *live_.back();
}

void SimWorld::pause(Process& process) {
  if (process.state_ == Process::State::kRunning) process.state_ = Process::State::kPaused;
}

void SimWorld::resume(Process& process) {
  if (process.state_ == Process::State::kPaused) process.state_ = Process::State::kRunning;
}

void SimWorld::isolate(Process& process) {
  RUNAHEAD_CHECK(process.reachable(), "only what runs can be killed");
  process.state_ = Process::State::kIsolated;
  std::erase(live_, &process);
}

bool SimWorld::run_isolated(Process& process, const std::function<bool()>& done, uint64_t steps_max) {
  RUNAHEAD_CHECK(process.state_ == Process::State::kIsolated, "isolate first");
  for (uint64_t step = 0; step < steps_max; ++step) {
    if (done()) return true;
    if (!process.ready_.empty()) {
      std::swap(process.ready_[rng.below(process.ready_.size())], process.ready_.back());
      Action action = std::move(process.ready_.back());
      process.ready_.pop_back();
      run(std::move(action));
    } else if (!process.timers_.empty()) {
      process.private_time_ = std::max(process.private_time_, process.timers_.next_due() - now_);
      run(process.timers_.pop());
    } else {
      return done();
    }
  }
  return false;
}

void SimWorld::end(Process& process) {
  process.state_ = Process::State::kEnded;
  std::erase(live_, &process);
  // Destroying a task may end coroutines, which post and set timers: those calls find kEnded and do nothing.
  std::vector<Action> ready = std::move(process.ready_);
  TimerHeap timers = std::move(process.timers_);
  process.ready_.clear();
  process.timers_.clear();
}

void SimWorld::bury(Process& process) {
  static std::vector<std::pair<std::vector<Action>, TimerHeap>>& graveyard =
      *new std::vector<std::pair<std::vector<Action>, TimerHeap>>;  // reachable for ever: not a leak to the sanitizer
  process.state_ = Process::State::kEnded;
  std::erase(live_, &process);
  graveyard.emplace_back(std::move(process.ready_), std::move(process.timers_));
  process.ready_.clear();
  process.timers_.clear();
}

bool SimWorld::step(Time until) { return run_ready() || run_timer(until); }

bool SimWorld::run_ready() {
  size_t count = 0;
  for (Process* process : live_)
    if (process->state_ == Process::State::kRunning) count += process->ready_.size();
  if (count == 0) return false;
  size_t pick = rng.below(count);
  for (Process* process : live_) {
    if (process->state_ != Process::State::kRunning) continue;
    if (pick >= process->ready_.size()) {
      pick -= process->ready_.size();
      continue;
    }
    std::swap(process->ready_[pick], process->ready_.back());
    Action action = std::move(process->ready_.back());
    process->ready_.pop_back();
    note(static_cast<uint64_t>(process->node_));
    run(std::move(action));
    return true;
  }
  check_failed("pick", __FILE__, __LINE__, "a counted task is gone");
}

bool SimWorld::run_timer(Time until) {
  TimerHeap* next = timers_.empty() ? nullptr : &timers_;
  for (Process* process : live_)
    if (process->state_ == Process::State::kRunning && !process->timers_.empty() &&
        (next == nullptr || process->timers_.next_due() < next->next_due()))
      next = &process->timers_;
  if (next == nullptr || next->next_due() > until) {
    now_ = std::max(now_, until);
    return false;
  }
  now_ = std::max(now_, next->next_due());
  note(static_cast<uint64_t>(now_.count()));
  run(next->pop());
  return true;
}

void SimWorld::run(Action action) {
  ++steps_;
  action();
}

}  // namespace runahead::test
