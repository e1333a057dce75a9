#include "services/cluster/local_cluster.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/limits.h"
#include "base/log.h"
#include "base/machine_limits.h"
#include "kernels/ops.h"
#include "services/engine/kernel_timings.h"

namespace runahead {
namespace {

using namespace std::chrono_literals;
constexpr auto kStartTimeout = 120s;  // weights of tens of GB from a cold disk
constexpr auto kStartAbortTimeout = 2s;  // of a start that is given up: nothing runs that must end in order
constexpr auto kRestartPause = 1s;

// Why a child has ended, if that is the last line that it has announced.
std::optional<Error> announced_error(std::string lines) {
  if (lines.ends_with('\n')) lines.pop_back();
  const auto announced = nlohmann::json::parse(lines.substr(lines.rfind('\n') + 1), nullptr, false);
  if (!announced.is_object() || announced.value("event", "") != "error") return std::nullopt;
  Error error{ErrorCode::kInternal, announced.value("message", "")};
  const std::string code = announced.value("code", "");
  for (int i = 0; i <= static_cast<int>(ErrorCode::kInternal); ++i)
    if (name(static_cast<ErrorCode>(i)) == code) error.code = static_cast<ErrorCode>(i);
  return error;
}

// In the forked child. The kernel kills it when the thread that forked it ends, so this process may be killed in any way
// and leaves nothing behind; the check is for a parent that has died before prctl. A process group of its own: Ctrl-C
// comes to this process alone, which then stops the children in order.
[[noreturn]] void become(const std::vector<std::string>& arguments, pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(0);
  setpgid(0, 0);
  dup2(STDERR_FILENO, STDOUT_FILENO);  // stdout is this process's data: what a child's libraries print there is talk
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  std::vector<char*> argv;
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  execv("/proc/self/exe", argv.data());
  _exit(127);
}

}  // namespace

void block_stop_signals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  sigprocmask(SIG_BLOCK, &set, nullptr);
}

std::optional<int> await_stop_signal(std::chrono::milliseconds timeout) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  const timespec wait = {timeout.count() / 1000, (timeout.count() % 1000) * 1'000'000};
  const int signal = sigtimedwait(&set, nullptr, &wait);
  return signal > 0 ? std::optional(signal) : std::nullopt;
}

std::string shared_cores_warning(int workers, int threads_per_worker, int decode_threads, int cpus) {
  if (workers * threads_per_worker > cpus)
    return fmt::format(
        "{} prefill workers of {} thread{} compute on {} CPU{}: they take turns, and their times are not "
        "those of workers with cores of their own",
        workers, threads_per_worker, threads_per_worker == 1 ? "" : "s", cpus, cpus == 1 ? "" : "s");
  if (decode_threads > cpus)
    return fmt::format("{} threads decode on {} CPU{}: more threads than CPUs are slower", decode_threads, cpus,
                       cpus == 1 ? "" : "s");
  return {};
}

void warn_of_shared_cores(const LocalClusterOptions& options) {
  const std::string warning = shared_cores_warning(options.workers, options.threads_of(true), options.threads_of(false),
                                                   machine_limits().usable_cpus());
  if (!warning.empty()) log::warn("{}", warning);
}

int LocalClusterOptions::threads_of(bool prefill) const {
  const int given = prefill ? engine.threads : decode_threads;
  return given > 0 ? given : std::max(1, machine_limits().usable_cpus() / (workers + 1));
}

Result<LocalCluster> LocalCluster::start(LocalClusterOptions options) {
  block_stop_signals();
  warn_of_shared_cores(options);
  // Chosen once for all children: timings differ from process to process, and unlike workers refuse each other.
  prepare_kernels();
  if (options.engine.compute == "auto") options.engine.compute = name(fastest_mode());
  LocalCluster cluster(std::move(options));
  cluster.plan_children();
  Child& coordinator = cluster.children_[0];
  TRY(cluster.spawn(coordinator));
  const auto addresses = TRY(cluster.await_ready(coordinator, kStartTimeout));
  cluster.http_ = addresses.value("http", "");
  cluster.control_ = addresses.value("control", "");
  for (size_t i = 1; i < cluster.children_.size(); ++i) {
    cluster.children_[i].arguments.insert(cluster.children_[i].arguments.end(), {"--coordinator", cluster.control_});
    TRY(cluster.spawn(cluster.children_[i]));
  }
  for (size_t i = 1; i < cluster.children_.size(); ++i) TRY(cluster.await_ready(cluster.children_[i], kStartTimeout));
  cluster.started_ = true;
  return cluster;
}

LocalCluster::LocalCluster(LocalCluster&& other) noexcept
    : options_(std::move(other.options_)),
      children_(std::exchange(other.children_, {})),
      http_(std::move(other.http_)),
      control_(std::move(other.control_)),
      started_(other.started_) {}

LocalCluster::~LocalCluster() { stop(); }

void LocalCluster::plan_children() {
  const auto common = [&](const std::string& role) {
    std::vector<std::string> arguments = {
        "runahead",         role,           "--model",          options_.engine.model.name, "--log-level",
        options_.log_level, "--log-format", options_.log_format};
    for (const std::string& one : options_.engine.model.override_kv)
      arguments.insert(arguments.end(), {"--override-kv", one});
    return arguments;
  };
  Child coordinator{.role = "coordinator", .arguments = common("coordinator")};
  coordinator.arguments.insert(coordinator.arguments.end(), {"--listen", options_.control, "--http", options_.http,
                                                             "--compute", options_.engine.compute});
  if (!options_.chat_template.empty())
    coordinator.arguments.insert(coordinator.arguments.end(), {"--chat-template", options_.chat_template});
  if (!options_.split_table.empty())
    coordinator.arguments.insert(coordinator.arguments.end(), {"--split-table", options_.split_table});
  if (!options_.prefix_cache) coordinator.arguments.emplace_back("--no-prefix-cache");
  if (!options_.job_store.empty())
    coordinator.arguments.insert(coordinator.arguments.end(), {"--job-store", options_.job_store});
  if (!options_.generation.defaults.empty())
    coordinator.arguments.insert(coordinator.arguments.end(), {"--generation-defaults", options_.generation.defaults});
  if (options_.generation.max_tokens)
    coordinator.arguments.insert(coordinator.arguments.end(),
                                 {"--default-max-tokens", std::to_string(*options_.generation.max_tokens)});
  coordinator.arguments.insert(coordinator.arguments.end(), options_.coordinator_flags.begin(),
                               options_.coordinator_flags.end());
  children_.push_back(std::move(coordinator));
  for (int i = 0; i <= options_.workers; ++i) {
    const std::string role = i < options_.workers ? "prefill" : "decode";
    const int threads = options_.threads_of(role == "prefill");
    Child worker{.role = role, .arguments = common(role)};
    worker.arguments.insert(worker.arguments.end(),
                            {"--compute", options_.engine.compute, "--threads", std::to_string(threads), "--transport",
                             options_.transport, "--sharers", std::to_string(options_.workers + 1), "--name",
                             role + "-" + std::to_string(role == "prefill" ? i : 0)});
    if (!options_.engine.packed_cache.empty())
      worker.arguments.insert(worker.arguments.end(), {"--packed-cache", options_.engine.packed_cache});
    if (role == "decode") worker.arguments.insert(worker.arguments.end(), {"--slots", std::to_string(options_.slots)});
    if (i == 0 && options_.progress) worker.arguments.push_back("--progress");
    children_.push_back(std::move(worker));
  }
}

Result<void> LocalCluster::spawn(Child& child) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0)
    return fail(ErrorCode::kInternal, std::string("cannot make a pipe: ") + std::strerror(errno));
  const pid_t parent = getpid();
  std::vector<std::string> arguments = child.arguments;
  arguments.insert(arguments.end(), {"--announce-fd", std::to_string(ends[1])});
  child.pid = fork();
  if (child.pid == 0) {
    fcntl(ends[1], F_SETFD, 0);  // the child keeps the writing end
    become(arguments, parent);
  }
  close(ends[1]);
  if (child.pid < 0) {
    close(ends[0]);
    return fail(ErrorCode::kInternal, std::string("cannot start a process: ") + std::strerror(errno));
  }
  child.announce_fd = ends[0];
  return {};
}

Result<nlohmann::json> LocalCluster::await_ready(Child& child, std::chrono::seconds timeout) {
  const auto end = std::chrono::steady_clock::now() + timeout;
  std::string line;
  while (line.find('\n') == std::string::npos) {
    if (std::chrono::steady_clock::now() > end)
      return fail(ErrorCode::kDeadlineExceeded, "the " + child.role + " process did not start in time");
    if (await_stop_signal(0ms)) return fail(ErrorCode::kCancelled, "interrupted");
    pollfd poll_fd{.fd = child.announce_fd, .events = POLLIN, .revents = 0};
    if (poll(&poll_fd, 1, 100) <= 0) continue;
    char buffer[4096];
    const ssize_t n = read(child.announce_fd, buffer, sizeof buffer);
    if (n <= 0) break;
    line.append(buffer, static_cast<size_t>(n));
  }
  auto announced = nlohmann::json::parse(line, nullptr, false);
  if (!announced.is_object() || announced.value("event", "") != "ready")
    return std::unexpected(announced_error(line).value_or(
        Error{ErrorCode::kInternal, "the " + child.role + " process ended before it was ready"}));
  return announced;
}

void LocalCluster::restart_dead_children() {
  for (Child& child : children_) {
    int status = 0;
    if (child.pid > 0) {
      if (waitpid(child.pid, &status, WNOHANG) != child.pid) continue;
      log::warn("the {} process {} ended ({} {}{}); starting it again", child.role, child.pid,
                WIFSIGNALED(status) ? "signal" : "exit code",
                WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), last_words(child));
      child.pid = -1;
      std::this_thread::sleep_for(kRestartPause);
    }
    if (child.role == "coordinator") {  // the same ports, so that workers and clients find it again
      for (size_t i = 0; i + 1 < child.arguments.size(); ++i) {
        if (child.arguments[i] == "--listen") child.arguments[i + 1] = control_;
        if (child.arguments[i] == "--http") child.arguments[i + 1] = http_;
      }
    }
    if (const auto spawned = spawn(child); !spawned) log::error("{}", spawned.error().message);
  }
}

// Of a child that has ended: what it has announced and nobody has read yet.
std::string LocalCluster::last_words(Child& child) {
  char buffer[4096];
  const ssize_t n = child.announce_fd < 0 ? 0 : read(child.announce_fd, buffer, sizeof buffer);
  close(std::exchange(child.announce_fd, -1));
  const auto error = announced_error(std::string(buffer, static_cast<size_t>(std::max<ssize_t>(n, 0))));
  return error ? ": " + error->message : "";
}

Result<void> LocalCluster::supervise() {
  while (!await_stop_signal(200ms)) restart_dead_children();
  return {};
}

void LocalCluster::stop() {
  const auto end = std::chrono::steady_clock::now() +
                   (started_ ? std::chrono::seconds(limits::kDrainTimeout) : std::chrono::seconds(kStartAbortTimeout));
  for (size_t i = 1; i < children_.size(); ++i)
    if (children_[i].pid > 0) kill(children_[i].pid, SIGTERM);
  // The coordinator, [0], is the last to go: workers say goodbye to it.
  for (auto it = children_.rbegin(); it != children_.rend(); ++it) {
    Child& child = *it;
    if (it + 1 == children_.rend() && child.pid > 0) kill(child.pid, SIGTERM);
    while (child.pid > 0 && waitpid(child.pid, nullptr, WNOHANG) == 0) {
      if (std::chrono::steady_clock::now() > end || await_stop_signal(5ms)) {  // a second signal means now
        for (const Child& other : children_)
          if (other.pid > 0) kill(other.pid, SIGKILL);
        waitpid(child.pid, nullptr, 0);
        break;
      }
    }
    child.pid = -1;
    if (child.announce_fd >= 0) close(std::exchange(child.announce_fd, -1));
  }
  children_.clear();
}

}  // namespace runahead
