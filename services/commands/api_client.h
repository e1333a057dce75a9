// What the commands that talk to a running cluster share: where it is and with which key, one call, one job.
#pragma once

#include <CLI/CLI.hpp>
#include <chrono>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "base/result.h"
#include "services/commands/command_line.h"
#include "services/http/http_client.h"

namespace runahead {

struct ClientOptions {
  std::string url = "127.0.0.1:8000", api_key;
};

inline constexpr std::chrono::seconds kClientTimeout{30};
inline constexpr std::chrono::seconds kAnswerTimeout{600};  // as long as a request may take by default
// Ids of tokens that every vocabulary has, for prompts of a length: what they say does not matter.
inline constexpr uint32_t kPlainTokenMin = 100, kPlainTokens = 150;
// How long a command that waits for something asks a server that does not answer: a coordinator that starts again needs less.
inline constexpr std::chrono::seconds kServerAwayMax{60};

// --api-key
void add_api_key_flag(CLI::App& command, std::string& api_key);
// --url --api-key
void add_client_flags(CLI::App& command, ClientOptions& options);

// The object that a 2xx answer holds; the API's error otherwise.
Result<nlohmann::json> ask(const ClientOptions& options, const std::string& method, const std::string& target,
                           const nlohmann::json& body = nullptr, std::chrono::milliseconds timeout = kClientTimeout);

// A server that may answer soon: it could not be reached, was silent, or starts.
bool is_away(const Error& error);

// ---- jobs ----

bool has_ended(const nlohmann::json& job);
std::string answer_of(const nlohmann::json& job);
// The answer of a job that has one, and the error of one that failed.
Result<void> show_job(const nlohmann::json& job, const CommonOptions& common);
// Why a job failed; error: its `error`.
Error error_of_job(const nlohmann::json& error);
// For CLI11: a sentence if it is no id of a job or a request.
std::string check_id(const std::string& id);

// The job when it has ended; asked for again and again, and while the server is away up to kServerAwayMax. kCancelled
// at a stop signal (block_stop_signals() before), kDeadlineExceeded after timeout_s, unless that is 0.
Result<nlohmann::json> await_job(const ClientOptions& options, const std::string& id, double timeout_s);

}  // namespace runahead
