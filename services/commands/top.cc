// runahead top: a live view of a running cluster on a plain terminal: escapes, no curses. Elsewhere one snapshot.
#include <fmt/format.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <ctime>
#include <optional>
#include <string>

#include "base/limits.h"
#include "services/commands/api_client.h"
#include "services/commands/commands.h"
#include "services/commands/input.h"
#include "services/commands/output.h"
#include "services/commands/top_view.h"

namespace runahead {
namespace {

using nlohmann::json;

// A key press waits for a call at most so long.
constexpr std::chrono::milliseconds kTopTimeout{2000};
constexpr double kIntervalMin = 0.2, kIntervalMax = 60;
constexpr int kColumnsDefault = 100;

struct TopOptions {
  ClientOptions client;
  double interval_s = 1;
  bool once = false;
};

struct Snapshot {
  json cluster, requests;
};

Result<Snapshot> snapshot(const ClientOptions& client) {
  Snapshot now;
  now.cluster = TRY(ask(client, "GET", "/v1/cluster", nullptr, kTopTimeout));
  now.requests = TRY(ask(client, "GET", "/v1/requests", nullptr, kTopTimeout));
  return now;
}

bool takes_colours() {
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return std::string_view(value == nullptr ? "" : value);
  };
  return isatty(STDOUT_FILENO) && variable("NO_COLOR").empty() && variable("CLICOLOR") != "0" &&
         variable("TERM") != "dumb" && !variable("TERM").empty();
}

bool is_terminal() {
  const char* terminal = std::getenv("TERM");
  return isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) && terminal != nullptr && *terminal != '\0' &&
         std::string_view(terminal) != "dumb";
}

std::string clock_text() {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  char text[16];
  std::strftime(text, sizeof text, "%H:%M:%S", &local);
  return text;
}

// The other screen, no cursor, keys as they come; all of it back when it ends. Signals come through a descriptor, so that
// no way out of the process but SIGKILL leaves the terminal as it is.
class Terminal {
 public:
  enum class Event { kTime, kResize, kQuit, kInterrupt };

  Terminal() {
    sigemptyset(&signals_);
    for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGWINCH, SIGTSTP}) sigaddset(&signals_, number);
    sigprocmask(SIG_BLOCK, &signals_, nullptr);
    signal_fd_ = signalfd(-1, &signals_, SFD_CLOEXEC | SFD_NONBLOCK);
    tcgetattr(STDIN_FILENO, &before_);
    enter();
  }
  ~Terminal() {
    leave();
    if (signal_fd_ >= 0) close(signal_fd_);
  }
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  void draw(const std::string& text) {
    std::string out = "\033[H";
    for (const char c : text) out += c == '\n' ? std::string("\033[K\n") : std::string(1, c);
    print_text(out + "\033[J");
  }

  // The first thing that happens within so long.
  Event wait(std::chrono::milliseconds timeout) {
    const auto end = std::chrono::steady_clock::now() + timeout;
    while (true) {
      const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
      pollfd sources[] = {{signal_fd_, POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}};
      if (left.count() <= 0 || poll(sources, 2, static_cast<int>(left.count())) <= 0) return Event::kTime;
      if (const auto event = sources[0].revents ? of_signal() : std::nullopt) return *event;
      if (const auto event = sources[1].revents ? of_key() : std::nullopt) return *event;
    }
  }

 private:
  void enter() {
    termios raw = before_;
    raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
    tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    print_text("\033[?1049h\033[?25l\033[?7l");
  }
  void leave() {
    print_text("\033[?7h\033[?25h\033[?1049l");
    tcsetattr(STDIN_FILENO, TCSANOW, &before_);
  }
  std::optional<Event> of_signal() {
    signalfd_siginfo info{};
    if (read(signal_fd_, &info, sizeof info) != sizeof info) return std::nullopt;
    if (info.ssi_signo == SIGWINCH) return Event::kResize;
    if (info.ssi_signo != SIGTSTP) return Event::kInterrupt;
    leave();
    raise(SIGSTOP);
    enter();
    return Event::kResize;
  }
  std::optional<Event> of_key() {
    char key = 0;
    if (read(STDIN_FILENO, &key, 1) != 1 || key == 'q' || key == 'Q') return Event::kQuit;  // or the terminal has gone
    return std::nullopt;
  }

  sigset_t signals_{};
  termios before_{};
  int signal_fd_ = -1;
};

void fit(TopFrame& frame) {
  winsize size{};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0 || size.ws_row == 0) return;
  frame.columns = size.ws_col;
  frame.rows = size.ws_row - 1;  // the cursor stands on the last
}

Result<void> watch(const TopOptions& options, Snapshot now) {
  using Clock = std::chrono::steady_clock;
  const auto interval = std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(options.interval_s));
  Terminal terminal;
  TopFrame frame{.colour = takes_colours()};
  std::string seen = clock_text();
  auto next = Clock::now() + interval;
  while (true) {
    fit(frame);
    frame.title = fmt::format("runahead top  {}  {}  (q ends)", options.client.url, clock_text());
    terminal.draw(top_text(now.cluster, now.requests, frame));
    const auto left = std::max(Clock::duration::zero(), next - Clock::now());
    const Terminal::Event event = terminal.wait(std::chrono::ceil<std::chrono::milliseconds>(left));
    if (event == Terminal::Event::kQuit) return {};
    if (event == Terminal::Event::kInterrupt) return std::unexpected(Error{ErrorCode::kCancelled, ""});
    if (event == Terminal::Event::kResize) continue;
    Result<Snapshot> asked = snapshot(options.client);
    if (!asked && !is_away(asked.error())) return std::unexpected(std::move(asked.error()));
    frame.away.clear();
    if (asked) {
      now = std::move(*asked);
      seen = clock_text();
    } else {
      frame.away = fmt::format("no answer; this is of {}: {}", seen, asked.error().message);
    }
    next = Clock::now() + interval;
  }
}

Result<void> top(const TopOptions& options, const CommonOptions& common) {
  Snapshot now = TRY(snapshot(options.client));
  if (common.json()) {
    print_json({{"cluster", now.cluster}, {"requests", now.requests.value("data", json::array())}});
    return {};
  }
  if (is_terminal() && !options.once) return watch(options, std::move(now));
  TopFrame frame{.columns = kColumnsDefault, .rows = 0, .colour = takes_colours()};
  frame.title = fmt::format("runahead top  {}  {}", options.client.url, clock_text());
  print_text(top_text(now.cluster, now.requests, frame));
  return {};
}

}  // namespace

void add_top(CommandLine& line) {
  const auto options = std::make_shared<TopOptions>();
  CLI::App* command = line.add("top", "watch a running cluster: its chain, requests and where their time goes",
                               [options](const CommonOptions& common) { return top(*options, common); });
  add_client_flags(*command, options->client);
  command->add_option("--interval", options->interval_s, "seconds between two looks")
      ->check(real_number(kIntervalMin, kIntervalMax));
  command->add_flag("--once", options->once, "print one look and end, as it does where there is no terminal");
}

}  // namespace runahead
