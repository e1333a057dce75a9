#include "services/commands/api_flags.h"

#include "services/commands/input.h"

namespace runahead {
namespace {

constexpr const char* kGroup = "API";
// As browsers send it in Origin: no path, no slash at the end.
std::string check_origin(const std::string& text) {
  const size_t scheme = text.find("://");
  const bool is_origin = scheme != std::string::npos && scheme > 0 && text.size() > scheme + 3 &&
                         text.find_first_of("/?# ", scheme + 3) == std::string::npos;
  if (text == "*" || is_origin) return {};
  return "'" + text + "' is no origin; write scheme://host or scheme://host:port, or *";
}

constexpr double kSecondsMin = 0.1;
constexpr double kSecondsMax = seconds(limits::kDeadlineMax);

}  // namespace

void add_api_flags(CLI::App& command, ApiSettings& settings) {
  const auto times = real_number(kSecondsMin, kSecondsMax);
  const auto add_time = [&](const char* flag, double& value, const std::string& what) {
    command.add_option(flag, value, "seconds " + what)->check(times)->capture_default_str()->group(kGroup);
  };
  command.add_option("--api-keys", settings.api_keys, "file with one API key a line; without it the API is open")
      ->group(kGroup);
  command
      .add_option("--admin", settings.admin,
                  "host:port of /livez, /readyz and /metrics without a key, beside the API's own; default: none")
      ->group(kGroup);
  command
      .add_option("--cors-origin", settings.cors_origins,
                  "origins whose pages may call the API in a browser, with commas between, or *; default: none")
      ->delimiter(',')
      ->check(check_origin)
      ->group(kGroup);
  add_time("--request-timeout", settings.request_timeout, "from a request's acceptance to its last token");
  add_time("--job-timeout", settings.job_timeout, "of one run of a job");
  add_time("--http-idle-timeout", settings.idle_timeout, "that an idle connection is kept; more than a proxy's own");
  add_time("--http-header-timeout", settings.header_timeout, "for a request's header to come");
  add_time("--http-body-timeout", settings.body_timeout, "for a request's body to come");
  add_time("--http-send-timeout", settings.send_timeout, "until a client that takes nothing is gone");
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
