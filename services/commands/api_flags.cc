#include "services/commands/api_flags.h"

#include "services/commands/input.h"
#include "services/http/browser_guard.h"
#include "services/http/http_target.h"

namespace runahead {
namespace {

constexpr const char* kGroup = "API";
std::string check_origin(const std::string& text) {
  if (text == "*" || is_origin(text)) return {};
  return "'" + text + "' is no origin; write scheme://host or scheme://host:port, or *";
}

std::string check_host_name(const std::string& text) {
  if (is_host_name(text)) return {};
  return "'" + text + "' is no name of a host; write it as clients do, without scheme and port, or *";
}

std::string check_otlp_endpoint(const std::string& url) {
  const auto endpoint = parse_otlp_endpoint(url);
  return endpoint ? std::string() : endpoint.error().message;
}

constexpr double kSecondsMin = 0.1;
constexpr double kSecondsMax = seconds(limits::kDeadlineMax);

void add_file_flags(CLI::App& command, FileStoreOptions& files) {
  constexpr int64_t kFileMibMax = 60;  // with its form, within what all bodies together may take
  command
      .add_option("--files-dir", files.folder,
                  "folder of /v1/files and /v1/batches; default: that of --job-store, and -files")
      ->group(kGroup);
  const auto add_bytes = [&](const char* flag, auto& value, int shift, int64_t max, const char* what) {
    command
        .add_option_function<int64_t>(
            flag, [&value, shift](int64_t given) { value = static_cast<size_t>(given) << shift; }, what)
        ->check(whole_number(1, max))
        ->default_str(std::to_string(value >> shift))
        ->group(kGroup);
  };
  add_bytes("--file-mib-max", files.file_bytes_max, 20, kFileMibMax, "MiB of one file that is uploaded");
  add_bytes("--files-gib-max", files.bytes_max, 30, 1 << 20, "GiB of all files together; then uploads are refused");
  add_bytes("--files-max", files.files_max, 0, 1'000'000, "files in all; then uploads are refused");
}

}  // namespace

CLI::Option* add_http_hosts_flag(CLI::App& command, std::vector<std::string>& hosts, const std::string& what) {
  return command
      .add_option("--http-hosts", hosts,
                  "names that clients call " + what +
                      " by on loopback without keys, beside localhost, with commas between, or *; default: none")
      ->delimiter(',')
      ->check(check_host_name);
}

void add_api_flags(CLI::App& command, ApiFrontOptions& api) {
  GatewayOptions& gateway = api.gateway;
  const auto times = real_number(kSecondsMin, kSecondsMax);
  const auto add_time = [&](const char* flag, Duration& value, const std::string& what) {
    command
        .add_option_function<double>(
            flag, [&value](double given) { value = from_seconds(given); }, "seconds " + what)
        ->check(times)
        ->default_str(value > Duration::zero() ? CLI::detail::to_string(seconds(value))
                                               : "")  // none, where 0 is no value
        ->group(kGroup);
  };
  command
      .add_option("--api-keys", gateway.api_keys_file,
                  "file with one API key a line, followed as it changes; without it the API is open")
      ->group(kGroup);
  command
      .add_option("--admin", api.admin,
                  "host:port of /livez, /readyz and /metrics without a key, beside the API's own; default: none")
      ->group(kGroup);
  command
      .add_option("--otlp-endpoint", api.otlp_endpoint,
                  "http://HOST:4318 of a collector that takes traces over OTLP/HTTP; default: none")
      ->check(check_otlp_endpoint)
      ->group(kGroup);
  command.add_option("--metrics-compat", api.metrics_compat, "vllm: /metrics has its names, too; default: none")
      ->check(CLI::IsMember({"", "vllm"}))
      ->group(kGroup);
  add_time("--ready-canary", api.canary_deadline,
           "that a completion through all workers may take, on which /readyz depends; default: it does not");
  command
      .add_option("--cors-origin", gateway.cors_origins,
                  "origins whose pages may call the API in a browser, with commas between, or *; default: none")
      ->delimiter(',')
      ->check(check_origin)
      ->group(kGroup);
  add_http_hosts_flag(command, gateway.hosts, "the API")->group(kGroup);
  add_time(
      "--queue-wait", api.queue_wait,
      "that a request may be predicted to wait for its first token; beyond, and with 16 in work, it is refused (429)");
  add_file_flags(command, api.files);
  add_time("--request-timeout", gateway.request_timeout, "from a request's acceptance to its last token");
  add_time("--job-timeout", gateway.job_timeout, "of one run of a job");
  add_time("--http-idle-timeout", gateway.http.idle_timeout,
           "that an idle connection is kept; more than a proxy's own");
  add_time("--http-header-timeout", gateway.http.header_timeout, "for a request's header to come");
  add_time("--http-body-timeout", gateway.http.body_timeout, "for a request's body to come");
  add_time("--http-send-timeout", gateway.http.stall_timeout, "until a client that takes nothing is gone");
}

std::vector<std::string> given_api_flags(const CLI::App& command) {
  std::vector<std::string> flags;
  for (const CLI::Option* option : command.get_options()) {
    if (option->get_group() != kGroup || option->count() == 0) continue;
    for (const std::string& value : option->results())
      flags.insert(flags.end(), {"--" + option->get_lnames().front(), value});
  }
  return flags;
}

}  // namespace runahead
