// Failpoint: for tests of whole clusters (tests/chaos): this process dies, stops or sleeps at one boundary of one message.
// RUNAHEAD_FAILPOINT=ROLE.MESSAGE.WHEN=ACTION[@N], docs/operations.md. Where it is not set, a process has none of this.
//   threads  the process's io_context thread.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/result.h"

namespace runahead {

class Failpoint {
 public:
  enum class When { kBefore, kAfter };
  enum class Way { kSent, kReceived };
  enum class Action { kKill, kStop, kSleep };

  // kInvalidConfig with one sentence.
  static Result<Failpoint> parse(std::string_view text);

  const std::string& role() const { return role_; }
  // The N-th time that this boundary is passed.
  bool hit(std::string_view message, When when, Way way);
  void act() const;
  const std::string& text() const { return text_; }
  Action action() const { return action_; }

 private:
  Failpoint() = default;

  std::string text_, role_, message_;
  When when_ = When::kBefore;
  bool sent_ = true, received_ = true;  // the ways that count
  Action action_ = Action::kKill;
  Duration sleep_{0};
  int nth_ = 1, passed_ = 0;
};

// RUNAHEAD_FAILPOINT, if it is of this role: then a warning in the log. Null: none is set for it.
Result<std::shared_ptr<Failpoint>> failpoint_of(std::string_view role);

}  // namespace runahead
