#include "transport/kv/select_transport.h"

#include <algorithm>

#include "base/log.h"
#include "transport/kv/any_kv_transport.h"
#include "transport/kv/device_kv_transport.h"
#include "transport/kv/memory_kv_transport.h"
#include "transport/kv/tcp_kv_transport.h"
#if RUNAHEAD_HAVE_UCX
#include "transport/kv/ucx_kv_transport.h"
#endif

namespace runahead {
namespace {

#if RUNAHEAD_HAVE_UCX
constexpr KvTransportKind::Create kCreateUcx = make_ucx_kv_transport;
#else
constexpr KvTransportKind::Create kCreateUcx = nullptr;
#endif

constexpr KvTransportKind kKinds[] = {
    {.name = "ucx",
     .between_processes = true,
     .of_devices = false,
     .has_one_port = false,
     .create = kCreateUcx,
     .built_with = "libucx-dev"},
    {.name = "tcp",
     .between_processes = true,
     .of_devices = false,
     .has_one_port = true,
     .create = TcpKvTransport::create,
     .built_with = ""},
    {.name = "nccl",
     .between_processes = true,
     .of_devices = true,
     .has_one_port = false,
     .create = make_nccl_kv_transport,
     .built_with = ""},
    {.name = "ipc",
     .between_processes = true,
     .of_devices = true,
     .has_one_port = true,
     .create = make_ipc_kv_transport,
     .built_with = ""},
    {.name = "memory",
     .between_processes = false,
     .of_devices = false,
     .has_one_port = true,
     .create = MemoryKvTransport::create,
     .built_with = ""},
};
constexpr std::string_view kAuto = "auto";

Result<std::unique_ptr<KvTransport>> make_any(const KvTransportOptions& options, asio::any_io_executor executor,
                                              Clock& clock) {
  std::vector<std::unique_ptr<KvTransport>> members;
  for (const KvTransportKind& kind : kKinds) {
    if (!kind.between_processes || kind.of_devices || kind.create == nullptr ||
        (options.listen.port != 0 && !kind.has_one_port))
      continue;
    auto made = kind.create(options, executor, clock);
    if (made) {
      members.push_back(std::move(*made));
    } else if (made.error().code == ErrorCode::kUnavailable) {
      log::info("K/V pages cannot travel over {}: {}", kind.name, made.error().message);
    } else {
      return made;
    }
  }
  if (members.empty()) return fail(ErrorCode::kUnavailable, "no K/V transport starts on this machine", "transport");
  return std::make_unique<AnyKvTransport>(std::move(members));
}

}  // namespace

std::span<const KvTransportKind> kv_transports() { return kKinds; }

bool moves_device_pages(std::string_view name) {
  const auto kind = std::ranges::find(kKinds, name, &KvTransportKind::name);
  return kind != std::end(kKinds) && kind->of_devices;
}

std::vector<std::string> kv_transport_choices() {
  std::vector<std::string> choices{std::string(kAuto)};
  for (const KvTransportKind& kind : kKinds)
    if (kind.between_processes) choices.emplace_back(kind.name);
  return choices;
}

Result<std::unique_ptr<KvTransport>> make_kv_transport(std::string_view name, KvTransportOptions options,
                                                       asio::any_io_executor executor, Clock& clock) {
  if (options.incarnation == 0)
    return fail(ErrorCode::kInvalidArgument, "a KV transport needs an incarnation other than 0");
  if (name == kAuto) return make_any(options, executor, clock);
  const auto kind = std::ranges::find(kKinds, name, &KvTransportKind::name);
  if (kind == std::end(kKinds)) {
    std::string names(kAuto);
    for (const KvTransportKind& known : kKinds) names += ", " + std::string(known.name);
    return fail(ErrorCode::kInvalidArgument,
                "'" + std::string(name.substr(0, 64)) + "' is no transport: choose one of " + names, "transport");
  }
  if (kind->create == nullptr)
    return fail(ErrorCode::kUnsupported,
                "this build has no " + std::string(name) + " transport: choose another, or build with " +
                    std::string(kind->built_with),
                "transport");
  return kind->create(std::move(options), std::move(executor), clock);
}

}  // namespace runahead
