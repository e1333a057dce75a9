// runahead logs: what happens to a job, from its start: how far the prefill is, its text as it comes, its end.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <string>
#include <thread>

#include "base/json_text.h"
#include "base/log.h"
#include "services/commands/api_client.h"
#include "services/commands/commands.h"
#include "services/commands/output.h"
#include "services/engine/progress_bar.h"

namespace runahead {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

// Without --follow: what the server has it sends at once, and a comment each second.
constexpr std::chrono::milliseconds kLookTimeout{900};
constexpr std::chrono::milliseconds kPauseMin{200}, kPauseMax{3000};  // before a stream is taken up again

struct LogsOptions {
  ClientOptions client;
  std::string id;
  bool follow = false;
};

// Nothing is left half done by leaving a stream: the job goes on.
extern "C" void end_at_once(int) { _exit(130); }

// The events of one job, shown as they come: over as many connections as it takes.
class JobLog {
 public:
  JobLog(const LogsOptions& options, const CommonOptions& common)
      : options_(options), json_(common.json()), bar_("prefill", !common.quiet && !common.json()) {}

  // One connection; kUnavailable if it ended before the job did.
  Result<void> read() {
    const auto begin = Clock::now();
    const auto on_event = [&](std::string_view event, std::string_view data) {
      heard_ = Clock::now();
      if (!take(event, data)) return false;
      return options_.follow || Clock::now() - begin < kLookTimeout;
    };
    const std::chrono::milliseconds timeout =
        options_.follow ? std::chrono::milliseconds(kClientTimeout) : kLookTimeout;
    const HttpAnswer answer = TRY(HttpClient(options_.client.url, timeout, options_.client.api_key)
                                      .get_stream("/v1/jobs/" + options_.id + "/events", last_id_, on_event));
    if (answer.status != 200) return std::unexpected(error_of(answer));
    if (!ended_) return fail(ErrorCode::kUnavailable, "the server ended the stream before the job ended");
    return {};
  }

  bool ended() const { return ended_; }
  Clock::time_point heard() const { return heard_; }

  // The error of a job that failed.
  Result<void> finish() {
    bar_.clear();
    if (!json_ && any_text_) print_text("\n");
    if (failure_.is_null()) return {};
    return std::unexpected(error_of_job(failure_));
  }

 private:
  // False at the last event, or when stdout takes no more.
  bool take(std::string_view event, std::string_view text) {
    const json data = json::parse(text, nullptr, false);
    if (!data.is_object()) return true;
    ended_ = event == "finished" || event == "error";
    if (event == "error") failure_ = data.value("error", json());
    if (event == "finished" && data.value("status", "") == "failed") failure_ = data.value("error", json());
    if (json_) return print_text(to_text(json{{"event", event}, {"id", last_id_}, {"data", data}}) + "\n") && !ended_;
    if (event == "progress") {
      bar_.show(data.value("fraction", 0.0), "");
    } else if (event == "tokens") {
      bar_.clear();
      const std::string piece = data.value("text", "");
      any_text_ = any_text_ || !piece.empty();
      if (!print_text(piece)) return false;
    } else if (ended_) {
      bar_.clear();
      if (data.value("status", "") == "cancelled") log::info("the job was cancelled");
    }
    return !ended_;
  }

  const LogsOptions& options_;
  bool json_;
  bool ended_ = false, any_text_ = false;
  std::string last_id_;
  json failure_;
  ProgressBar bar_;
  Clock::time_point heard_ = Clock::now();
};

Result<void> logs(const LogsOptions& options, const CommonOptions& common) {
  for (const int number : {SIGINT, SIGTERM}) std::signal(number, end_at_once);
  TRY(ask(options.client, "GET", "/v1/jobs/" + options.id));  // it is there
  JobLog log(options, common);
  std::chrono::milliseconds pause = kPauseMin;
  while (true) {
    const auto before = log.heard();
    const Result<void> read = log.read();
    if (log.ended() || read) return log.finish();
    if (!is_away(read.error())) return read;
    if (!options.follow) return log.finish();
    if (Clock::now() - log.heard() > kServerAwayMax) return read;
    pause = log.heard() > before ? kPauseMin : std::min(2 * pause, kPauseMax);
    log::debug("the stream broke ({}); it is taken up again", read.error().message);
    std::this_thread::sleep_for(pause);
  }
}

}  // namespace

void add_logs(CommandLine& line) {
  const auto options = std::make_shared<LogsOptions>();
  CLI::App* command = line.add("logs", "print the answer of a job as far as it is made, or while it is made",
                               [options](const CommonOptions& common) { return logs(*options, common); });
  add_client_flags(*command, options->client);
  command->add_option("id", options->id, "of the job")->required()->check(check_id);
  command->add_flag("-f,--follow", options->follow, "until the job has ended, also over a server that starts again");
}

}  // namespace runahead
