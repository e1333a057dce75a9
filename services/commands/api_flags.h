// Flags about the API that `coordinator` and `serve` share: keys, probes, CORS, times.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "services/process/api_front.h"

namespace runahead {

void add_api_flags(CLI::App& command, ApiFrontOptions& api);

// Of every listener of a process that needs no key on loopback; `what` it serves.
CLI::Option* add_http_hosts_flag(CLI::App& command, std::vector<std::string>& hosts, const std::string& what);

// Those that were given to `command`, wherever they came from, as a command line for a coordinator.
std::vector<std::string> given_api_flags(const CLI::App& command);

}  // namespace runahead
