#include "transport/kv/ucx_context.h"

#include <arpa/inet.h>
#include <linux/filter.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <ucs/debug/log_def.h>

#include <charconv>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <utility>

#include "base/limits.h"
#include "base/log.h"

namespace runahead {
namespace {

// What we need of UCX, unless the user's environment says otherwise.
constexpr std::pair<const char*, const char*> kSettings[] = {
    {"KEEPALIVE_INTERVAL", "1s"},  // default 20 s: a killed peer over shared memory was noticed after 19.5 s
    {"RNDV_SCHEME", "get_zcopy"},  // never put: only the receiver's own worker writes its pages
};

// Without these no endpoint with error handling over shared memory. UCX 1.13 takes them from the environment alone.
constexpr const char* kSharedMemorySettings[] = {"UCX_POSIX_ERROR_HANDLING", "UCX_SYSV_ERROR_HANDLING"};

constexpr size_t kLogLineBytes = 512;

// UCX prints its messages on stdout, which is for data. Called on any thread.
ucs_log_func_rc_t log_line(const char*, unsigned, const char*, ucs_log_level_t level, const ucs_log_component_config_t*,
                           const char* format, va_list arguments) {
  char line[kLogLineBytes];
  std::vsnprintf(line, sizeof line, format, arguments);
  log::log(level <= UCS_LOG_LEVEL_WARN ? log::level::warn : log::level::debug, "ucx: {}", line);
  return UCS_LOG_FUNC_RC_STOP;
}

void take_over_log() {
  static const bool taken = [] {
    ucs_log_push_handler(log_line);
    return true;
  }();
  (void)taken;
}

// Every process takes a segment of 4.3 MiB there (1.13) and more under load; where that fails, UCX does not start.
bool has_room_for_shared_memory() {
  struct statvfs shm{};
  return statvfs("/dev/shm", &shm) == 0 && uint64_t{shm.f_bavail} * shm.f_frsize >= limits::kUcxSharedMemoryBytes;
}

std::string allowed_transports() {
  const char* variable = std::getenv("UCX_TLS");
  return variable == nullptr ? "all" : variable;
}

bool allows_shared_memory() {
  const std::string tls = allowed_transports();
  for (const char* name : {"all", "posix", "sysv", "shm", "sm", "mm", "^"})
    if (tls.find(name) != std::string::npos) return true;
  return false;
}

// UCX's connection manager needs a network transport among those allowed, though pages may take shared memory.
Result<void> check_tls() {
  const std::string tls = allowed_transports();
  if (tls.find("tcp") != std::string::npos || tls.find("all") != std::string::npos || tls.starts_with('^')) return {};
  return fail(ErrorCode::kUnavailable,
              "UCX_TLS=" + tls + " lacks tcp, by which UCX connects workers: use UCX_TLS=" + tls +
                  ",tcp (pages still take the fastest lane)",
              "UCX_TLS");
}

}  // namespace

Error ucx_error(ErrorCode code, const std::string& what, ucs_status_t status) {
  return {code, what + ": " + ucs_status_string(status), {}};
}

std::string lanes_of(ucp_ep_h endpoint) {
  char* text = nullptr;
  size_t size = 0;
  FILE* stream = open_memstream(&text, &size);
  ucp_ep_print_info(endpoint, stream);
  std::fclose(stream);
  std::string lanes;
  for (const char* at = text; (at = std::strstr(at, "lane[")) != nullptr; ++at) {
    const char* begin = std::strchr(at, ':');  // "lane[0]:  1:posix/memory md[0]  -> ..."
    begin = begin != nullptr ? std::strchr(begin + 1, ':') : nullptr;
    if (begin == nullptr) break;
    const std::string lane(begin + 1, std::strcspn(begin + 1, " .\n"));
    if (lanes.find(lane) == std::string::npos) lanes += (lanes.empty() ? "" : " ") + lane;
  }
  std::free(text);
  return lanes;
}

std::string ucx_transport_name() {
  unsigned major = 0, minor = 0, release = 0;
  ucp_get_version(&major, &minor, &release);
  return "ucx-" + std::to_string(major) + "." + std::to_string(minor);
}

Result<ucp_context_h> open_ucx_context(bool allow_remote) {
  TRY(check_tls());
  take_over_log();
  const bool without_posix = std::getenv("UCX_TLS") == nullptr && !has_room_for_shared_memory();
  if (without_posix)
    log::info("ucx: /dev/shm has no {} MiB left, so pages take other lanes", limits::kUcxSharedMemoryBytes >> 20);
  if (allows_shared_memory())  // else UCX warns of variables that nobody reads
    for (const char* variable : kSharedMemorySettings) ::setenv(variable, "y", /*overwrite=*/0);
  ucp_config_t* config = nullptr;
  ucs_status_t status = ucp_config_read(nullptr, nullptr, &config);
  if (status != UCS_OK)
    return std::unexpected(ucx_error(ErrorCode::kUnavailable, "UCX cannot read its settings", status));
  for (const auto& [key, value] : kSettings)
    if (std::getenv((std::string("UCX_") + key).c_str()) == nullptr) ucp_config_modify(config, key, value);
  if (without_posix) ucp_config_modify(config, "TLS", "^posix");
  if (!allow_remote && std::getenv("UCX_NET_DEVICES") == nullptr) ucp_config_modify(config, "NET_DEVICES", "lo");
  ucp_params_t params{};
  params.field_mask = UCP_PARAM_FIELD_FEATURES;
  params.features = UCP_FEATURE_AM | UCP_FEATURE_WAKEUP;
  ucp_context_h context = nullptr;
  status = ucp_init(&params, config, &context);
  ucp_config_release(config);
  if (status != UCS_OK)
    return std::unexpected(ucx_error(ErrorCode::kUnavailable, "UCX does not start (is UCX_TLS right?)", status));
  return context;
}

PortSockets sockets_of_port(uint16_t port) {
  PortSockets found;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd", ignored)) {
    const std::string name = entry.path().filename().string();
    int fd = -1;
    std::from_chars(name.data(), name.data() + name.size(), fd);
    sockaddr_storage address{};
    socklen_t length = sizeof address;
    int type = 0, listens = 0;
    if (::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) != 0) continue;
    const in_port_t local = address.ss_family == AF_INET    ? reinterpret_cast<sockaddr_in&>(address).sin_port
                            : address.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(address).sin6_port
                                                            : in_port_t{0};
    if (port == 0 || ntohs(local) != port) continue;
    length = sizeof type;
    if (::getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) != 0 || type != SOCK_STREAM) continue;
    length = sizeof listens;
    ::getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &length);
    (listens != 0 ? found.listeners : found.connections).push_back(fd);
  }
  return found;
}

void ignore_new_connections(int listener) {
  sock_filter drop_all = BPF_STMT(BPF_RET | BPF_K, 0);
  const sock_fprog program{.len = 1, .filter = &drop_all};
  ::setsockopt(listener, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
}

}  // namespace runahead
