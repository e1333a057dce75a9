// runahead trace: where the time of a request or a job of a running cluster went, as a file for ui.perfetto.dev.
#include <fmt/format.h>

#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/json_text.h"
#include "services/commands/api_client.h"
#include "services/commands/commands.h"
#include "services/commands/output.h"

namespace runahead {
namespace {

using nlohmann::json;

struct TraceOptions {
  ClientOptions client;
  std::string id, file;
};

Result<void> write_file(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << text << '\n';
  file.close();
  if (file) return {};
  return fail(ErrorCode::kInvalidConfig, "'" + path + "' cannot be written; name another file", "file");
}

Result<void> trace(const TraceOptions& options, const CommonOptions& common) {
  const std::string kind = options.id.starts_with("job-") ? "jobs" : "requests";
  const json trace = TRY(ask(options.client, "GET", "/v1/" + kind + "/" + options.id + "/trace"));
  if (options.file.empty()) {
    print_json(trace);
    return {};
  }
  TRY(write_file(options.file, to_text(trace)));
  if (common.json()) print_json({{"file", options.file}, {"events", trace.value("traceEvents", json::array()).size()}});
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
  add_client_flags(*command, options->client);
}

}  // namespace runahead
