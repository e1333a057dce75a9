#include "services/process/failpoint.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <csignal>
#include <cstdlib>
#include <optional>
#include <thread>

#include "actors/messages.h"
#include "base/log.h"

namespace runahead {
namespace {

constexpr const char* kFailpointVariable = "RUNAHEAD_FAILPOINT";
constexpr std::array<std::string_view, 3> kRoles = {"coordinator", "prefill", "decode"};
constexpr std::array<std::string_view, 3> kKvSteps = {"kv_begin", "kv_page", "kv_end"};
constexpr int kNumberMax = 1'000'000;

std::unexpected<Error> not_a_failpoint(std::string_view text, const std::string& why) {
  return fail(ErrorCode::kInvalidConfig,
              std::string(kFailpointVariable) + " '" + std::string(text) + "': " + why +
                  "; write ROLE.MESSAGE.before|after[-sent|-received]=kill|stop|sleep:MS[@N]",
              kFailpointVariable);
}

template <class Names>
bool is_one_of(const Names& names, std::string_view name) {
  return std::ranges::find(names, name) != std::end(names);
}

// What stands before the first `mark`, which goes with it; all of it without one.
std::string_view take_until(std::string_view& rest, char mark) {
  const size_t end = rest.find(mark);
  const std::string_view taken = rest.substr(0, end);
  rest = end == std::string_view::npos ? std::string_view() : rest.substr(end + 1);
  return taken;
}

std::optional<int> positive(std::string_view text) {
  int number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || number < 1 || number > kNumberMax)
    return std::nullopt;
  return number;
}

}  // namespace

Result<Failpoint> Failpoint::parse(std::string_view text) {
  Failpoint point;
  point.text_ = text;
  std::string_view rest = text;
  std::string_view place = take_until(rest, '=');
  point.role_ = take_until(place, '.');
  point.message_ = take_until(place, '.');
  std::string_view way = place;
  const std::string_view when = take_until(way, '-');
  if (!is_one_of(kRoles, point.role_)) return not_a_failpoint(text, "no role '" + point.role_ + "'");
  if (!is_one_of(message_names(), point.message_) && !is_one_of(kKvSteps, point.message_))
    return not_a_failpoint(text, "no message '" + point.message_ + "'");
  if (when != "before" && when != "after") return not_a_failpoint(text, "neither before nor after");
  point.when_ = when == "before" ? When::kBefore : When::kAfter;
  if (!way.empty() && way != "sent" && way != "received") return not_a_failpoint(text, "neither sent nor received");
  point.sent_ = way != "received";
  point.received_ = way != "sent";
  std::string_view action = take_until(rest, '@');
  const std::string_view number = rest.empty() && !text.ends_with('@') ? "1" : rest;
  const std::string_view what = take_until(action, ':');
  if (what != "kill" && what != "stop" && what != "sleep") return not_a_failpoint(text, "no such action");
  point.action_ = what == "kill" ? Action::kKill : what == "stop" ? Action::kStop : Action::kSleep;
  const std::optional<int> milliseconds = what == "sleep"  ? positive(action)
                                          : action.empty() ? std::optional(1)
                                                           : std::nullopt;
  const std::optional<int> nth = positive(number);
  if (!milliseconds || !nth) return not_a_failpoint(text, "numbers are whole, from 1 to " + std::to_string(kNumberMax));
  point.sleep_ = std::chrono::milliseconds(*milliseconds);
  point.nth_ = *nth;
  return point;
}

bool Failpoint::hit(std::string_view message, When when, Way way) {
  if (message != message_ || when != when_ || !(way == Way::kSent ? sent_ : received_)) return false;
  return ++passed_ == nth_;
}

void Failpoint::act() const {
  log::warn("failpoint {}: now", text_);
  log::flush();
  switch (action_) {
    case Action::kKill:
      std::raise(SIGKILL);
      break;
    case Action::kStop:
      std::raise(SIGSTOP);
      break;
    case Action::kSleep:
      std::this_thread::sleep_for(sleep_);
      break;
  }
}

Result<std::shared_ptr<Failpoint>> failpoint_of(std::string_view role) {
  const char* text = std::getenv(kFailpointVariable);
  if (text == nullptr || *text == '\0') return nullptr;
  Failpoint point = TRY(Failpoint::parse(text));
  if (point.role() != role) return nullptr;
  log::warn("{}={}: this process will fail on purpose, for a test; unset it for any other use", kFailpointVariable,
            text);
  return std::make_shared<Failpoint>(std::move(point));
}

}  // namespace runahead
