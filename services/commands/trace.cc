// runahead trace: where the time of a request or a job of a running cluster went, as a file for ui.perfetto.dev.
#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/json_text.h"
#include "services/commands/commands.h"
#include "services/commands/input.h"
#include "services/commands/output.h"
#include "services/http/http_client.h"

namespace runahead {
namespace {

using nlohmann::json;

constexpr std::chrono::seconds kTimeout{30};

struct TraceOptions {
  std::string url = "127.0.0.1:8000", api_key, id, file;
};

std::string check_id(const std::string& id) {
  const auto is_plain = [](unsigned char c) { return std::isalnum(c) || c == '-' || c == '_'; };
  return !id.empty() && std::ranges::all_of(id, is_plain) ? std::string()
                                                          : "'" + id + "' is no id of a request or a job";
}

Result<void> write_file(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << text << '\n';
  file.close();
  if (file) return {};
  return fail(ErrorCode::kInvalidConfig, "'" + path + "' cannot be written; name another file", "file");
}

Result<void> trace(const TraceOptions& options, const CommonOptions& common) {
  const std::string kind = options.id.starts_with("job-") ? "jobs" : "requests";
  const HttpAnswer answer =
      TRY(HttpClient(options.url, kTimeout, options.api_key).get("/v1/" + kind + "/" + options.id + "/trace"));
  if (answer.status == 401)
    return fail(ErrorCode::kUnauthorized,
                "this API takes no call without its key; give it in RUNAHEAD_API_KEY or by --api-key");
  if (answer.status != 200) return std::unexpected(error_of(answer));
  const json parsed = json::parse(answer.body, nullptr, false);
  if (!parsed.is_object() || !parsed.contains("traceEvents"))
    return fail(ErrorCode::kUnavailable, "what answers at " + options.url + " is no coordinator of Runahead", "url");
  if (options.file.empty()) {
    print_json(parsed);
    return {};
  }
  TRY(write_file(options.file, answer.body));
  if (common.json()) print_json({{"file", options.file}, {"events", parsed["traceEvents"].size()}});
  else if (!common.quiet) fmt::print(stderr, "{}: open it in https://ui.perfetto.dev\n", options.file);
  return {};
}

}  // namespace

void add_trace(CommandLine& line) {
  const auto options = std::make_shared<TraceOptions>();
  CLI::App* command = line.add("trace", "show where the time of a request or a job of a running cluster went",
                               [options](const CommonOptions& common) { return trace(*options, common); });
  command->add_option("id", options->id, "of a request in work or among the last, or of a job")
      ->required()
      ->check(check_id);
  command->add_option("-f,--file", options->file,
                      "where to write Chrome's trace event JSON, which Perfetto opens; without it to stdout");
  command->add_option("--url", options->url, "host:port of the API");
  command->add_option("--api-key", options->api_key,
                      "key of the API, better in RUNAHEAD_API_KEY, which no list of processes shows; default: none");
}

}  // namespace runahead
