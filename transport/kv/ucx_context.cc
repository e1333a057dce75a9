#include "transport/kv/ucx_context.h"

#include <sys/statvfs.h>
#include <ucs/debug/log_def.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/log_limit.h"

namespace runahead {
namespace {

// What we need of UCX, unless the user's environment says otherwise.
constexpr std::pair<const char*, const char*> kSettings[] = {
    {"KEEPALIVE_INTERVAL", "1s"},  // default 20 s: a killed peer over shared memory was noticed after 19.5 s
    {"RNDV_SCHEME", "get_zcopy"},  // never put: only the receiver's own worker writes its pages
};

// UCX 1.13 takes these from the environment alone.
constexpr std::pair<const char*, const char*> kSharedMemorySettings[] = {
    {"ERROR_HANDLING", "y"},  // else no endpoint with error handling
    {"FIFO_SIZE", "128"},  // with the next, 1 MiB of shared memory for each end of a hop instead of 4.3
    {"RX_BUFS_GROW", "128"},
};

constexpr size_t kLogLineBytes = 512;

// UCX prints its messages on stdout, which is for data. Called on any thread.
ucs_log_func_rc_t log_line(const char*, unsigned, const char*, ucs_log_level_t level, const ucs_log_component_config_t*,
                           const char* format, va_list arguments) {
  char line[kLogLineBytes];
  std::vsnprintf(line, sizeof line, format, arguments);
  if (level <= UCS_LOG_LEVEL_WARN) {
    warn_limited("ucx", "ucx: {}", line);
  } else {
    log::debug("ucx: {}", line);
  }
  return UCS_LOG_FUNC_RC_STOP;
}

void take_over_log() {
  static const bool taken = [] {
    ucs_log_push_handler(log_line);
    return true;
  }();
  (void)taken;
}

// Every end of a hop takes a segment of 1 MiB there (1.13) and more under load; where that fails, UCX does not start.
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

Result<std::shared_ptr<UcxContext>> UcxContext::open(bool allow_remote) {
  take_over_log();
  const bool without_posix = std::getenv("UCX_TLS") == nullptr && !has_room_for_shared_memory();
  if (without_posix)
    log::info("ucx: /dev/shm has no {} MiB left, so pages take other lanes", limits::kUcxSharedMemoryBytes >> 20);
  if (allows_shared_memory())  // else UCX warns of variables that nobody reads
    for (const char* transport : {"UCX_POSIX_", "UCX_SYSV_"})
      for (const auto& [key, value] : kSharedMemorySettings)
        ::setenv((std::string(transport) + key).c_str(), value, /*overwrite=*/0);
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
  std::shared_ptr<UcxContext> opened(new UcxContext(context));
  int ignored = -1;
  ucp_worker_destroy(TRY(opened->make_worker(&ignored)));  // hops make theirs later, and are not to find out then
  return opened;
}

UcxContext::~UcxContext() {
  if (memory_ != nullptr) ucp_mem_unmap(context_, memory_);
  ucp_cleanup(context_);
}

Result<void> UcxContext::register_memory(std::span<std::byte> pool) {
  RUNAHEAD_CHECK(memory_ == nullptr, "memory is registered once");
  if (pool.empty()) return {};
  ucp_mem_map_params_t params{};
  params.field_mask = UCP_MEM_MAP_PARAM_FIELD_ADDRESS | UCP_MEM_MAP_PARAM_FIELD_LENGTH;
  params.address = pool.data();
  params.length = pool.size();
  const ucs_status_t status = ucp_mem_map(context_, &params, &memory_);
  if (status == UCS_OK) return {};
  memory_ = nullptr;
  return std::unexpected(ucx_error(ErrorCode::kUnavailable, "UCX cannot register the page pool (ulimit -l?)", status));
}

Result<ucp_worker_h> UcxContext::make_worker(int* event) const {
  ucp_worker_params_t params{};
  params.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE;
  params.thread_mode = UCS_THREAD_MODE_SINGLE;
  ucp_worker_h worker = nullptr;
  ucs_status_t status = ucp_worker_create(context_, &params, &worker);
  if (status == UCS_OK) {
    status = ucp_worker_get_efd(worker, event);
    if (status == UCS_OK) return worker;
    ucp_worker_destroy(worker);
  }
  return std::unexpected(
      ucx_error(ErrorCode::kUnavailable, "UCX cannot run on an event loop with this UCX_TLS", status));
}

}  // namespace runahead
